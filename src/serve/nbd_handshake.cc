// SPDX-License-Identifier: Apache-2.0
#include "serve/nbd_handshake.h"

#include <algorithm>
#include <array>

#include "serve/tls.h"

namespace firn::serve {

using wire::nbd::Form;
using wire::nbd::OptionHeader;

namespace {

constexpr uint64_t kSkippedMax = 16 * kMiB;  // Of one option's data; beyond, the length is a lie.
constexpr uint32_t kPreferredBlock = 4096;
constexpr size_t kGatheredBytes = 32 * kKiB;  // Of entries of a list, sent at once.

}  // namespace

Result<std::optional<NbdAgreement>> NbdHandshake::run(Io& io) {
  if (!TRY(greet(io))) return std::optional<NbdAgreement>();
  for (;;) {
    switch (TRY(next_option(io))) {
      case Next::option:
        continue;
      case Next::over:
        return std::optional<NbdAgreement>();
      case Next::transmission:
        return std::optional<NbdAgreement>(std::move(agreed_));
    }
  }
}

// False when the client left without a word: a port scan, a health check.
Result<bool> NbdHandshake::greet(Io& io) {
  const wire::nbd::Greeting greeting;
  TRY(send(io, view_of(greeting), {}));
  if (!TRY(inbox_.gather(io, *stream_, wire::nbd::kClientFlagsBytes))) {
    if (inbox_.pending().empty()) return false;
    return fail(Errc::invalid, "it left after {} bytes of its flags", inbox_.pending().size());
  }
  client_flags_ =
      TRY(wire::nbd::decode_client_flags(inbox_.pending().first(wire::nbd::kClientFlagsBytes)));
  inbox_.consume(wire::nbd::kClientFlagsBytes);
  return true;
}

Result<NbdHandshake::Next> NbdHandshake::next_option(Io& io) {
  if (!TRY(inbox_.gather(io, *stream_, wire::nbd::kOptionHeaderBytes))) {
    if (inbox_.pending().empty()) return Next::over;
    return fail(Errc::invalid, "it left after {} bytes of an option", inbox_.pending().size());
  }
  const OptionHeader header =
      TRY(wire::nbd::decode_option_header(inbox_.pending().first(wire::nbd::kOptionHeaderBytes)));
  inbox_.consume(wire::nbd::kOptionHeaderBytes);
  if (header.length > kSkippedMax) {
    return fail(Errc::invalid, "option {} announces {} bytes", static_cast<uint32_t>(header.option),
                header.length);
  }
  if (header.length > wire::nbd::kOptionBytesMax) {
    for (uint64_t left = header.length; left > 0;) {
      if (!TRY(inbox_.gather(io, *stream_, 1))) return Next::over;
      const auto step = std::min<uint64_t>(left, inbox_.pending().size());
      inbox_.consume(static_cast<size_t>(step));
      left -= step;
    }
    return refuse(io, header.option, OptionReply::error_too_big, "the option is too long");
  }
  if (!TRY(inbox_.gather(io, *stream_, header.length))) {
    return fail(Errc::invalid, "it left in the middle of option {}",
                static_cast<uint32_t>(header.option));
  }
  // A copy: answering may wait, and the inbox moves when it gathers.
  const View pending = inbox_.pending().first(header.length);
  const std::vector<std::byte> data(pending.begin(), pending.end());
  inbox_.consume(header.length);
  return act(io, header.option, data);
}

Result<NbdHandshake::Next> NbdHandshake::act(Io& io, Option option, View data) {
  const bool fixed = (client_flags_ & wire::nbd::kFixedNewstyle) != 0;
  if (!fixed && option != Option::export_name) {
    return fail(Errc::invalid, "option {} without fixed newstyle", static_cast<uint32_t>(option));
  }
  if (world_.tls_mode == TlsMode::required && !encrypted_ && option != Option::starttls &&
      option != Option::abort) {
    return before_tls(io, option);
  }
  switch (option) {
    case Option::export_name:
      return export_name(io, data);
    case Option::abort:
      // Clients may leave without waiting for it.
      (void)reply(io, option, OptionReply::ack, {}).has_value();
      return Next::over;
    case Option::list:
      return list(io, data);
    case Option::starttls:
      return start_tls(io, data);
    case Option::info:
    case Option::go:
      return info_or_go(io, option, data);
    case Option::structured_reply:
    case Option::extended_headers:
      return switch_on(io, option, data);
    case Option::list_meta_context:
    case Option::set_meta_context:
      return meta_context(io, option, data);
  }
  return refuse(io, option, OptionReply::error_unsupported, "the option is unknown");
}

Result<NbdHandshake::Next> NbdHandshake::before_tls(Io& io, Option option) {
  if (option == Option::export_name) {
    return fail(Errc::invalid, "EXPORT_NAME without TLS, which is required");
  }
  return refuse(io, option, OptionReply::error_tls_required, "TLS is required");
}

Result<NbdHandshake::Next> NbdHandshake::export_name(Io& io, View data) {
  // The one option whose refusal has no form but the end of the connection.
  if (form_ == Form::extended) {
    return fail(Errc::invalid, "EXPORT_NAME after EXTENDED_HEADERS");
  }
  const std::string_view name = TRY(wire::nbd::decode_string(data, "the export name"));
  Result<Export> found = resolve_export(io, world_.exports, name, world_.default_export);
  if (!found) {
    return fail(Errc::not_found, "export '{}': {}", printable(name), text_of(found.error()));
  }
  enter(found.take());
  wire::nbd::ExportNameReply answer;
  answer.bytes = agreed_.exported.device->geometry().bytes;
  answer.flags = agreed_.flags;
  static constexpr std::array<std::byte, wire::nbd::kExportNameZeroes> kZeroes{};
  const bool zeroes = (client_flags_ & wire::nbd::kNoZeroes) == 0;
  TRY(send(io, view_of(answer), zeroes ? View(kZeroes) : View()));
  return Next::transmission;
}

Result<NbdHandshake::Next> NbdHandshake::list(Io& io, View data) {
  if (!data.empty()) {
    return refuse(io, Option::list, OptionReply::error_invalid, "LIST takes no data");
  }
  // Thousands of snapshots are a few large sends.
  std::vector<std::byte> gathered;
  for (const ExportEntry& entry : world_.exports.list(io)) {
    const auto body = wire::nbd::encode(wire::nbd::ServerEntry{entry.name, entry.description});
    const auto header = wire::nbd::encode(wire::nbd::OptionReplyHeader{
        Option::list, OptionReply::server, static_cast<uint32_t>(body.size())});
    gathered.insert(gathered.end(), header.begin(), header.end());
    gathered.insert(gathered.end(), body.begin(), body.end());
    if (gathered.size() < kGatheredBytes) continue;
    TRY(send(io, gathered, {}));
    gathered.clear();
  }
  if (!gathered.empty()) TRY(send(io, gathered, {}));
  return reply(io, Option::list, OptionReply::ack, {});
}

Result<NbdHandshake::Next> NbdHandshake::start_tls(Io& io, View data) {
  if (world_.tls_mode == TlsMode::off) {
    return refuse(io, Option::starttls, OptionReply::error_policy, "TLS is not configured");
  }
  if (encrypted_ || !data.empty()) {
    return refuse(io, Option::starttls, OptionReply::error_invalid,
                  encrypted_ ? "TLS is in use already" : "STARTTLS takes no data");
  }
  if (!inbox_.pending().empty()) {
    return fail(Errc::invalid, "{} bytes arrived between STARTTLS and its answer",
                inbox_.pending().size());
  }
  TRY(reply(io, Option::starttls, OptionReply::ack, {}));
  stream_ = TRY(world_.tls->accept(io, socket_));
  encrypted_ = true;
  ++world_.counters.tls_connections_total;
  form_ = Form::simple;
  contexts_.clear();
  contexts_of_ = Export();
  return Next::option;
}

Result<NbdHandshake::Next> NbdHandshake::info_or_go(Io& io, Option option, View data) {
  const auto request = wire::nbd::decode_info_request(data);
  if (!request) {
    return refuse(io, option, OptionReply::error_invalid, text_of(request.error()));
  }
  Result<Export> resolved =
      resolve_export(io, world_.exports, request->name, world_.default_export);
  if (!resolved) return refuse_export(io, option, resolved.error());
  Export found = resolved.take();
  const bool with_contexts = contexts_of_.name == found.name && !contexts_.empty();

  wire::nbd::InfoExport size;
  size.bytes = found.device->geometry().bytes;
  size.flags = flags_of(found, with_contexts);
  TRY(reply(io, option, OptionReply::info, view_of(size)));
  if (request->wants_block_size) {
    wire::nbd::InfoBlockSize block;
    block.minimum = 1U;
    block.preferred = kPreferredBlock;
    block.maximum = static_cast<uint32_t>(wire::nbd::kPayloadAdvertised);
    TRY(reply(io, option, OptionReply::info, view_of(block)));
  }
  if (request->wants_name) {
    TRY(reply(io, option, OptionReply::info,
              wire::nbd::encode(wire::nbd::InfoText{wire::nbd::Info::name, found.name})));
  }
  if (request->wants_description && !found.description.empty()) {
    TRY(reply(
        io, option, OptionReply::info,
        wire::nbd::encode(wire::nbd::InfoText{wire::nbd::Info::description, found.description})));
  }
  if (option == Option::go) enter(std::move(found));
  TRY(reply(io, option, OptionReply::ack, {}));
  return option == Option::go ? Next::transmission : Next::option;
}

Result<NbdHandshake::Next> NbdHandshake::switch_on(Io& io, Option option, View data) {
  if (!data.empty()) {
    return refuse(io, option, OptionReply::error_invalid, "the option takes no data");
  }
  if (option == Option::extended_headers) {
    form_ = Form::extended;
  } else if (form_ == Form::extended) {
    return refuse(io, option, OptionReply::error_extended_headers_required,
                  "extended headers are in use already");
  } else {
    form_ = Form::structured;
  }
  return reply(io, option, OptionReply::ack, {});
}

Result<NbdHandshake::Next> NbdHandshake::meta_context(Io& io, Option option, View data) {
  const bool listing = option == Option::list_meta_context;
  if (!listing) {  // Whatever comes of it, the old selection is gone.
    contexts_.clear();
    contexts_of_ = Export();
    if (form_ == Form::simple) {
      return refuse(io, option, OptionReply::error_invalid, "needs structured replies");
    }
  }
  const auto asked = wire::nbd::decode_meta_queries(data);
  if (!asked) return refuse(io, option, OptionReply::error_invalid, text_of(asked.error()));
  for (const std::string_view query : asked->queries) {
    if (query.find(':') == std::string_view::npos) {
      return refuse(io, option, OptionReply::error_invalid, "a query has no namespace");
    }
  }
  Result<Export> found = resolve_export(io, world_.exports, asked->name, world_.default_export);
  if (!found) return refuse_export(io, option, found.error());

  std::vector<std::shared_ptr<MetaContext>> chosen;
  const auto choose = [&](std::string_view query) {
    for (auto& context : match_contexts(found->contexts, query, listing)) {
      if (std::find(chosen.begin(), chosen.end(), context) == chosen.end())
        chosen.push_back(context);
    }
  };
  if (listing && asked->queries.empty()) choose("");
  for (const std::string_view query : asked->queries) choose(query);

  uint32_t id = 0;
  for (const auto& context : chosen) {
    ++id;
    TRY(reply(io, option, OptionReply::meta_context,
              wire::nbd::encode(wire::nbd::MetaContextEntry{listing ? 0 : id, context->name()})));
  }
  if (!listing) {
    contexts_ = std::move(chosen);
    contexts_of_ = found.take();
  }
  return reply(io, option, OptionReply::ack, {});
}

// --- common

void NbdHandshake::enter(Export found) {
  if (contexts_of_.name == found.name) {
    agreed_.contexts = std::move(contexts_);
    found = std::move(contexts_of_);
  }
  contexts_of_ = Export();
  agreed_.form = form_;
  agreed_.flags = flags_of(found, !agreed_.contexts.empty());
  agreed_.exported = std::move(found);
}

// Multi-conn holds because all connections of an export share one device object: what one has been
// told is written, every other one reads (D1), and what was written before a flush began is durable
// when the flush is answered, whoever wrote it (D2).
uint16_t NbdHandshake::flags_of(const Export& exported, bool with_contexts) const {
  uint16_t flags = wire::nbd::kHasFlags | wire::nbd::kSendFlush | wire::nbd::kSendFua |
                   wire::nbd::kSendTrim | wire::nbd::kSendWriteZeroes | wire::nbd::kSendFastZero |
                   wire::nbd::kSendCache | wire::nbd::kCanMultiConn;
  if (exported.read_only || exported.device->geometry().read_only) flags |= wire::nbd::kReadOnly;
  if (form_ != Form::simple) flags |= wire::nbd::kSendDf;
  if (form_ == Form::extended && with_contexts) flags |= wire::nbd::kBlockStatusPayload;
  return flags;
}

Result<NbdHandshake::Next> NbdHandshake::reply(Io& io, Option option, OptionReply type, View data) {
  const auto header = wire::nbd::encode(
      wire::nbd::OptionReplyHeader{option, type, static_cast<uint32_t>(data.size())});
  TRY(send(io, header, data));
  return Next::option;
}

Result<NbdHandshake::Next> NbdHandshake::refuse(Io& io, Option option, OptionReply type,
                                                std::string_view why) {
  return reply(io, option, type, std::as_bytes(std::span(why)));
}

Result<NbdHandshake::Next> NbdHandshake::refuse_export(Io& io, Option option, Error error) {
  if (error.code == Errc::not_found || error.code == Errc::invalid) {
    return refuse(io, option, OptionReply::error_unknown, "there is no such export");
  }
  // The sentence may name what is none of the client's business.
  world_.log.line(Severity::error, "export not opened", stream_->peer(), text_of(error));
  return refuse(io, option, OptionReply::error_unknown, "the export cannot be opened");
}

Result<void> NbdHandshake::send(Io& io, View a, View b) {
  const std::array<::iovec, 2> slices{slice_of(a), slice_of(b)};
  return stream_->send(io, Iovec(slices.data(), b.empty() ? 1 : 2));
}

}  // namespace firn::serve
