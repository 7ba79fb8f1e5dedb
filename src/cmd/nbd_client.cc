// SPDX-License-Identifier: Apache-2.0
#include "cmd/nbd_client.h"

#include <algorithm>

#include "base/check.h"
#include "io/socket.h"
#include "wire/text.h"

namespace firn::cmd {

namespace nbd = wire::nbd;

namespace {

constexpr std::array<std::string_view, 2> kContexts{"base:allocation", "qemu:allocation-depth"};
constexpr uint64_t kMapBytesMax = 2 * kGiB;
constexpr uint64_t kSmallPayloadMax = 16 * kMiB;  // Errors and block status.

Errc errc_of(nbd::Errno error) { return error == nbd::Errno::no_space ? Errc::no_space : Errc::io; }

}  // namespace

Result<std::unique_ptr<NbdClient>> NbdClient::connect(Io& io, const std::string& socket,
                                                      const std::string& disk) {
  std::unique_ptr<NbdClient> client(new NbdClient(io, TRY(connect_unix(io, socket)), disk));
  TRY(client->greet());
  return client;
}

Result<void> NbdClient::receive(Bytes into) {
  while (!into.empty()) {
    const size_t got = TRY(io_.receive(*socket_, into));
    if (got == 0) return fail(Errc::io, "disk {}: its server ended the connection", disk_);
    into = into.subspan(got);
  }
  return ok;
}

Result<void> NbdClient::send(View head, View payload) {
  const std::array<::iovec, 2> slices{slice_of(head), slice_of(payload)};
  return io_.send(*socket_, Iovec(slices).first(payload.empty() ? 1 : 2));
}

// --- the handshake

Result<void> NbdClient::greet() {
  nbd::Greeting greeting;
  TRY(receive(bytes_of(greeting)));
  const uint16_t flags = TRY(nbd::decode_greeting(view_of(greeting)));
  if ((flags & nbd::kFixedNewstyle) == 0) {
    return fail(Errc::unsupported, "disk {}: its server speaks an old form of NBD", disk_);
  }
  const be32 answer = uint32_t{flags} & (nbd::kFixedNewstyle | nbd::kNoZeroes);
  TRY(send(view_of(answer), {}));
  const auto nothing = [](nbd::OptionReply, View) -> Result<void> { return ok; };
  TRY(option(nbd::Option::structured_reply, {}, nothing));
  TRY(select_contexts());
  return go();
}

template <class Take>
Result<void> NbdClient::option(nbd::Option which, View data, Take&& take) {
  const auto head = nbd::encode(nbd::OptionHeader{which, static_cast<uint32_t>(data.size())});
  TRY(send(head, data));
  std::vector<std::byte> payload;
  while (true) {
    std::array<std::byte, nbd::kOptionReplyHeaderBytes> bytes;
    TRY(receive(bytes));
    const nbd::OptionReplyHeader header = TRY(nbd::decode_option_reply_header(bytes));
    if (header.option != which || header.length > nbd::kOptionBytesMax) {
      return fail(Errc::io, "disk {}: its server answers what was not asked", disk_);
    }
    payload.resize(header.length);
    TRY(receive(payload));
    if (nbd::is_error(header.reply)) {
      const Result<std::string_view> text = nbd::decode_string(payload, "message");
      return fail(Errc::io, "disk {}: its server refuses {}: {}", disk_, nbd::name_of(which),
                  wire::printable(text ? *text : "no reason given", 200));
    }
    if (header.reply == nbd::OptionReply::ack) return ok;
    TRY(take(header.reply, View(payload)));
  }
}

Result<void> NbdClient::select_contexts() {
  std::array<bool, kContexts.size()> found{};
  const auto note = [&](nbd::OptionReply reply, View data) -> Result<void> {
    if (reply != nbd::OptionReply::meta_context) return ok;
    const nbd::MetaContextEntry entry = TRY(nbd::decode_meta_context_entry(data));
    for (size_t i = 0; i < kContexts.size(); ++i) {
      if (entry.name != kContexts[i]) continue;
      contexts_[i] = entry.id;
      found[i] = true;
    }
    return ok;
  };
  const nbd::MetaQueries queries{disk_, {kContexts.begin(), kContexts.end()}};
  TRY(option(nbd::Option::set_meta_context, nbd::encode(queries), note));
  if (found[0] && found[1] && contexts_[0] != contexts_[1]) return ok;
  return fail(Errc::unsupported, "disk {}: its server does not say what is allocated", disk_);
}

Result<void> NbdClient::go() {
  const auto note = [this](nbd::OptionReply reply, View data) -> Result<void> {
    if (reply != nbd::OptionReply::info) return ok;
    if (TRY(nbd::decode_info_type(data)) != nbd::Info::exported) return ok;
    const nbd::InfoExport info = TRY(nbd::decode_info_export(data));
    bytes_ = info.bytes;
    return ok;
  };
  nbd::InfoRequest wanted;
  wanted.name = disk_;
  TRY(option(nbd::Option::go, nbd::encode(wanted), note));
  if (bytes_ > 0 && bytes_ <= kDiskBytesMax) return ok;
  return fail(Errc::io, "disk {}: its server says that it has {} bytes", disk_, bytes_);
}

// --- transmission

Result<void> NbdClient::request(nbd::Command command, Range range, View payload) {
  const nbd::Request asked{0, command, ++cookie_, range.at, range.length};
  std::array<std::byte, nbd::kRequestBytes> head;
  CHECK(nbd::encode(asked, nbd::Form::structured, head) == head.size());
  return send(head, payload);
}

template <class Take>
Result<void> NbdClient::reply(const char* verb, uint64_t at, Take&& take) {
  Result<void> outcome;  // An error does not end the reply: the last chunk does.
  while (true) {
    // What carries nothing may come as a simple reply, which is shorter.
    std::array<std::byte, nbd::kStructuredChunkBytes> bytes;
    constexpr size_t kSimpleBytes = sizeof(nbd::SimpleReply);
    TRY(receive(Bytes(bytes).first(kSimpleBytes)));
    if (load<be32>(bytes) == nbd::kSimpleReplyMagic) {
      return take_simple(verb, at, View(bytes).first(kSimpleBytes));
    }
    TRY(receive(Bytes(bytes).subspan(kSimpleBytes)));
    const nbd::ReplyChunk chunk = TRY(nbd::decode_reply_chunk(bytes, nbd::Form::structured));
    if (chunk.cookie != cookie_) {
      return fail(Errc::io, "disk {}: its server answers what was not asked", disk_);
    }
    if (chunk.type == nbd::Chunk::error || chunk.type == nbd::Chunk::error_offset) {
      outcome = take_error(verb, at, chunk);
    } else if (chunk.type != nbd::Chunk::none) {
      TRY(take(chunk));
    } else if (chunk.length != 0) {
      return fail(Errc::io, "disk {}: its server sends an empty answer with content", disk_);
    }
    if ((chunk.flags & nbd::kReplyDone) != 0) return outcome;
  }
}

Result<void> NbdClient::take_simple(const char* verb, uint64_t at, View bytes) {
  const nbd::SimpleReply simple = TRY(nbd::decode_simple_reply(bytes));
  if (simple.cookie != cookie_) {
    return fail(Errc::io, "disk {}: its server answers what was not asked", disk_);
  }
  if (simple.error == 0) return ok;
  return fail(errc_of(static_cast<nbd::Errno>(uint32_t{simple.error})),
              "disk {}: cannot {} at {}: error {}", disk_, verb, at,
              static_cast<uint32_t>(simple.error));
}

Result<void> NbdClient::take_error(const char* verb, uint64_t at, const nbd::ReplyChunk& chunk) {
  if (chunk.length > nbd::kOptionBytesMax) {
    return fail(Errc::io, "disk {}: its server sends an error of {} bytes", disk_, chunk.length);
  }
  std::vector<std::byte> payload(chunk.length);
  TRY(receive(payload));
  const nbd::ErrorChunk error = TRY(nbd::decode_error_chunk(payload, chunk.type));
  return fail(errc_of(error.error), "disk {}: cannot {} at {}: {}", disk_, verb, at,
              error.text.empty() ? fmt::format("error {}", static_cast<uint32_t>(error.error))
                                 : wire::printable(error.text, 200));
}

// How many bytes of `into` it filled.
Result<uint64_t> NbdClient::take_data(const nbd::ReplyChunk& chunk, Range range, Bytes into) {
  const auto inside = [&](uint64_t at, uint64_t length) {
    return at >= range.at && Range{at - range.at, length}.within(range.length);
  };
  if (chunk.type == nbd::Chunk::offset_data && chunk.length > sizeof(nbd::OffsetData)) {
    nbd::OffsetData head;
    TRY(receive(bytes_of(head)));
    const uint64_t length = chunk.length - sizeof(head);
    if (inside(head.offset, length)) {
      TRY(receive(into.subspan(head.offset - range.at, length)));
      return length;
    }
  } else if (chunk.type == nbd::Chunk::offset_hole && chunk.length == sizeof(nbd::OffsetHole)) {
    nbd::OffsetHole hole;
    TRY(receive(bytes_of(hole)));
    if (inside(hole.offset, hole.length)) {
      std::ranges::fill(into.subspan(hole.offset - range.at, hole.length), std::byte{});
      return uint64_t{hole.length};
    }
  }
  return fail(Errc::io, "disk {}: its server sends other bytes than were asked for", disk_);
}

Result<void> NbdClient::read(uint64_t at, Bytes into) {
  const Range range{at, into.size()};
  CHECK(range.within(bytes_) && range.length <= nbd::kPayloadAdvertised);
  TRY(request(nbd::Command::read, range));
  uint64_t covered = 0;
  TRY(reply("read", at, [&](const nbd::ReplyChunk& chunk) -> Result<void> {
    covered += TRY(take_data(chunk, range, into));
    return ok;
  }));
  if (covered == range.length) return ok;
  return fail(Errc::io, "disk {}: its server sent {} bytes of {} at {}", disk_, covered,
              range.length, at);
}

Result<void> NbdClient::write(uint64_t at, View from) {
  const Range range{at, from.size()};
  CHECK(range.within(bytes_) && range.length <= nbd::kPayloadAdvertised);
  TRY(request(nbd::Command::write, range, from));
  return reply("write", at, [this](const nbd::ReplyChunk&) -> Result<void> {
    return fail(Errc::io, "disk {}: its server answers a write with content", disk_);
  });
}

// One request. How much of `range` is known now: where the shorter of the two answers ends.
Result<uint64_t> NbdClient::map_some(Range range, std::vector<Run>& into) {
  TRY(request(nbd::Command::block_status, range));
  std::array<std::vector<nbd::StatusChunk::Run>, kContexts.size()> answers;
  TRY(reply("map", range.at, [&](const nbd::ReplyChunk& chunk) -> Result<void> {
    if (chunk.type != nbd::Chunk::block_status || chunk.length > kSmallPayloadMax) {
      return fail(Errc::io, "disk {}: its server sends no block status", disk_);
    }
    std::vector<std::byte> payload(chunk.length);
    TRY(receive(payload));
    nbd::StatusChunk status = TRY(nbd::decode_status_chunk(payload, chunk.type));
    for (size_t i = 0; i < contexts_.size(); ++i) {
      if (status.context == contexts_[i]) answers[i] = std::move(status.runs);
    }
    return ok;
  }));
  uint64_t known = 0;
  std::array<size_t, kContexts.size()> at{};
  while (known < range.length && at[0] < answers[0].size() && at[1] < answers[1].size()) {
    nbd::StatusChunk::Run& allocation = answers[0][at[0]];
    nbd::StatusChunk::Run& depth = answers[1][at[1]];
    // The last run may go beyond what was asked.
    const uint64_t length = std::min({allocation.length, depth.length, range.length - known});
    const bool zero = (allocation.flags & nbd::kStateZero) != 0;
    into.push_back({length, !zero ? Kind::data : depth.flags != 0 ? Kind::zero : Kind::hole});
    known += length;
    allocation.length -= length;
    depth.length -= length;
    if (allocation.length == 0) ++at[0];
    if (depth.length == 0) ++at[1];
  }
  if (known > 0) return known;
  return fail(Errc::io, "disk {}: its server does not say what is allocated at {}", disk_,
              range.at);
}

Result<void> NbdClient::map(Range range, std::vector<Run>& into) {
  CHECK(range.within(bytes_) && range.length <= kMapBytesMax);
  while (!range.empty()) {
    const uint64_t known = TRY(map_some(range, into));
    range = {range.at + known, range.length - known};
  }
  return ok;
}

void NbdClient::end() {
  // The server may be gone already, which is as good.
  static_cast<void>(request(nbd::Command::disconnect, {}).has_value());
  io_.shutdown(*socket_);
}

}  // namespace firn::cmd
