// SPDX-License-Identifier: Apache-2.0
#include "wire/nbd.h"

#include <algorithm>

#include "base/check.h"

namespace firn::wire::nbd {
namespace {

// Takes typed pieces off the front of hostile bytes. Once something did not fit, nothing fits any
// more.
class Cursor {
 public:
  explicit Cursor(View bytes) : rest_(bytes) {}
  template <class T>
  bool take(T& into) {
    if (rest_.size() < sizeof(T)) return false;
    into = load<T>(rest_);
    rest_ = rest_.subspan(sizeof(T));
    return true;
  }
  bool take(size_t count, View& into) {
    if (rest_.size() < count) return false;
    into = rest_.first(count);
    rest_ = rest_.subspan(count);
    return true;
  }
  View rest() const { return rest_; }

 private:
  View rest_;
};

template <class T>
size_t put(Bytes into, size_t at, const T& object) {
  CHECK(at + sizeof(T) <= into.size());
  std::memcpy(into.data() + at, &object, sizeof(T));
  return at + sizeof(T);
}
template <class T>
void append(std::vector<std::byte>& into, const T& object) {
  const View bytes = view_of(object);
  into.insert(into.end(), bytes.begin(), bytes.end());
}
void append_text(std::vector<std::byte>& into, std::string_view text) {
  const View bytes = std::as_bytes(std::span(text));
  into.insert(into.end(), bytes.begin(), bytes.end());
}

std::string_view text_in(View bytes) {
  // Characters may alias bytes: the one place where wire text becomes a string.
  return {static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size()};
}

// RFC 3629: shortest forms only, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text) {
  size_t i = 0;
  const auto at = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  while (i < text.size()) {
    const unsigned first = at(i);
    size_t more = 0;
    uint32_t value = 0;
    if (first < 0x80) {
      ++i;
      continue;
    }
    if (first >= 0xc2 && first <= 0xdf) {
      more = 1;
      value = first & 0x1f;
    } else if (first >= 0xe0 && first <= 0xef) {
      more = 2;
      value = first & 0x0f;
    } else if (first >= 0xf0 && first <= 0xf4) {
      more = 3;
      value = first & 0x07;
    } else {
      return false;
    }
    if (text.size() - i <= more) return false;
    for (size_t k = 1; k <= more; ++k) {
      if ((at(i + k) & 0xc0) != 0x80) return false;
      value = (value << 6) | (at(i + k) & 0x3f);
    }
    if (more == 2 && (value < 0x800 || (value >= 0xd800 && value <= 0xdfff))) return false;
    if (more == 3 && (value < 0x10000 || value > 0x10ffff)) return false;
    i += more + 1;
  }
  return true;
}

Result<void> expect_bytes(View bytes, size_t count, const char* what) {
  if (bytes.size() == count) return ok;
  return fail(Errc::invalid, "{} has {} bytes instead of {}", what, bytes.size(), count);
}
Result<void> expect_magic(uint64_t seen, uint64_t wanted, const char* what) {
  if (seen == wanted) return ok;
  return fail(Errc::invalid, "{} begins with {:#x} instead of {:#x}", what, seen, wanted);
}

struct RawOption {
  be64 magic = kOptionMagic;
  be32 option;
  be32 length;
};
static_assert(OnDisk<RawOption, kOptionHeaderBytes>);
struct RawOptionReply {
  be64 magic = kOptionReplyMagic;
  be32 option;
  be32 reply;
  be32 length;
};
static_assert(OnDisk<RawOptionReply, kOptionReplyHeaderBytes>);
struct RawRequest {
  be32 magic = kRequestMagic;
  be16 flags;
  be16 command;
  be64 cookie;
  be64 offset;
  be32 length;
};
static_assert(OnDisk<RawRequest, kRequestBytes>);
struct RawExtendedRequest {
  be32 magic = kExtendedRequestMagic;
  be16 flags;
  be16 command;
  be64 cookie;
  be64 offset;
  be64 length;
};
static_assert(OnDisk<RawExtendedRequest, kExtendedRequestBytes>);
struct RawChunk {
  be32 magic = kStructuredReplyMagic;
  be16 flags;
  be16 type;
  be64 cookie;
  be32 length;
};
static_assert(OnDisk<RawChunk, kStructuredChunkBytes>);
struct RawExtendedChunk {
  be32 magic = kExtendedReplyMagic;
  be16 flags;
  be16 type;
  be64 cookie;
  be64 offset;
  be64 length;
};
static_assert(OnDisk<RawExtendedChunk, kExtendedChunkBytes>);

template <class Raw>
Request request_of(const Raw& raw) {
  return {.flags = raw.flags,
          .command = static_cast<Command>(static_cast<uint16_t>(raw.command)),
          .cookie = raw.cookie,
          .offset = raw.offset,
          .length = raw.length};
}

// A counted string: be32 length, then the bytes.
Result<std::string_view> take_string(Cursor& cursor, const char* what) {
  be32 length;
  View bytes;
  if (!cursor.take(length)) return fail(Errc::invalid, "the length of {} is cut off", what);
  if (length > kStringMax) {
    return fail(Errc::invalid, "{} has {} bytes; {} are allowed", what, uint32_t{length},
                kStringMax);
  }
  if (!cursor.take(uint32_t{length}, bytes)) {
    return fail(Errc::invalid, "{} of {} bytes is cut off after {}", what, uint32_t{length},
                cursor.rest().size());
  }
  return decode_string(bytes, what);
}

template <class T>
std::array<std::byte, sizeof(T)> array_of(const T& raw) {
  return std::bit_cast<std::array<std::byte, sizeof(T)>>(raw);
}

}  // namespace

std::string_view name_of(Command command) {
  static constexpr std::array<std::string_view, kCommands> kNames{
      "read", "write", "disconnect", "flush", "trim", "cache", "write_zeroes", "block_status"};
  const auto index = static_cast<size_t>(command);
  return index < kNames.size() ? kNames[index] : "unknown";
}

std::string_view name_of(Option option) {
  switch (option) {
    case Option::export_name:
      return "EXPORT_NAME";
    case Option::abort:
      return "ABORT";
    case Option::list:
      return "LIST";
    case Option::starttls:
      return "STARTTLS";
    case Option::info:
      return "INFO";
    case Option::go:
      return "GO";
    case Option::structured_reply:
      return "STRUCTURED_REPLY";
    case Option::list_meta_context:
      return "LIST_META_CONTEXT";
    case Option::set_meta_context:
      return "SET_META_CONTEXT";
    case Option::extended_headers:
      return "EXTENDED_HEADERS";
  }
  return "unknown";
}

Result<uint16_t> decode_greeting(View bytes) {
  TRY(expect_bytes(bytes, sizeof(Greeting), "the greeting"));
  const auto greeting = load<Greeting>(bytes);
  TRY(expect_magic(greeting.magic, kServerMagic, "the greeting"));
  TRY(expect_magic(greeting.option_magic, kOptionMagic, "the greeting's second word"));
  return uint16_t{greeting.flags};
}

Result<uint32_t> decode_client_flags(View bytes) {
  TRY(expect_bytes(bytes, kClientFlagsBytes, "the client's flags"));
  const uint32_t flags = load<be32>(bytes);
  const uint32_t unknown = flags & ~uint32_t{kFixedNewstyle | kNoZeroes};
  if (unknown != 0) return fail(Errc::invalid, "client flags {:#x} are unknown", unknown);
  return flags;
}

Result<OptionHeader> decode_option_header(View bytes) {
  TRY(expect_bytes(bytes, kOptionHeaderBytes, "an option"));
  const auto raw = load<RawOption>(bytes);
  TRY(expect_magic(raw.magic, kOptionMagic, "an option"));
  return OptionHeader{static_cast<Option>(uint32_t{raw.option}), raw.length};
}
std::array<std::byte, kOptionHeaderBytes> encode(OptionHeader header) {
  RawOption raw;
  raw.option = static_cast<uint32_t>(header.option);
  raw.length = header.length;
  return array_of(raw);
}

Result<OptionReplyHeader> decode_option_reply_header(View bytes) {
  TRY(expect_bytes(bytes, kOptionReplyHeaderBytes, "an option's reply"));
  const auto raw = load<RawOptionReply>(bytes);
  TRY(expect_magic(raw.magic, kOptionReplyMagic, "an option's reply"));
  return OptionReplyHeader{static_cast<Option>(uint32_t{raw.option}),
                           static_cast<OptionReply>(uint32_t{raw.reply}), raw.length};
}
std::array<std::byte, kOptionReplyHeaderBytes> encode(OptionReplyHeader header) {
  RawOptionReply raw;
  raw.option = static_cast<uint32_t>(header.option);
  raw.reply = static_cast<uint32_t>(header.reply);
  raw.length = header.length;
  return array_of(raw);
}

Result<std::string_view> decode_string(View bytes, const char* what) {
  if (bytes.size() > kStringMax) {
    return fail(Errc::invalid, "{} has {} bytes; {} are allowed", what, bytes.size(), kStringMax);
  }
  const std::string_view text = text_in(bytes);
  if (text.find('\0') != std::string_view::npos) {
    return fail(Errc::invalid, "{} contains a NUL byte", what);
  }
  if (!is_utf8(text)) return fail(Errc::invalid, "{} is not UTF-8", what);
  return text;
}

Result<InfoRequest> decode_info_request(View bytes) {
  Cursor cursor(bytes);
  InfoRequest request;
  request.name = TRY(take_string(cursor, "the export name"));
  be16 count;
  if (!cursor.take(count))
    return fail(Errc::invalid, "the count of information requests is cut off");
  if (cursor.rest().size() != size_t{count} * sizeof(be16)) {
    return fail(Errc::invalid, "{} information requests were announced, {} bytes follow",
                uint16_t{count}, cursor.rest().size());
  }
  for (be16 type; cursor.take(type);) {
    // Unknown ones are ignored: the protocol lets clients ask for what we never heard of.
    if (type == static_cast<uint16_t>(Info::name)) request.wants_name = true;
    if (type == static_cast<uint16_t>(Info::description)) request.wants_description = true;
    if (type == static_cast<uint16_t>(Info::block_size)) request.wants_block_size = true;
  }
  return request;
}
std::vector<std::byte> encode(const InfoRequest& request) {
  CHECK(request.name.size() <= kStringMax);
  std::vector<std::byte> out;
  append(out, be32(static_cast<uint32_t>(request.name.size())));
  append_text(out, request.name);
  std::vector<Info> types;
  if (request.wants_name) types.push_back(Info::name);
  if (request.wants_description) types.push_back(Info::description);
  if (request.wants_block_size) types.push_back(Info::block_size);
  append(out, be16(static_cast<uint16_t>(types.size())));
  for (const Info type : types) append(out, be16(static_cast<uint16_t>(type)));
  return out;
}

Result<MetaQueries> decode_meta_queries(View bytes) {
  Cursor cursor(bytes);
  MetaQueries found;
  found.name = TRY(take_string(cursor, "the export name"));
  be32 count;
  if (!cursor.take(count)) return fail(Errc::invalid, "the count of queries is cut off");
  if (count > kQueriesMax) {
    return fail(Errc::invalid, "{} queries; {} are allowed", uint32_t{count}, kQueriesMax);
  }
  // Each query takes its length at least, so a false count ends in take_string, not in an
  // allocation.
  for (uint32_t i = 0; i < count; ++i) {
    found.queries.push_back(TRY(take_string(cursor, "a query")));
  }
  if (!cursor.rest().empty()) {
    return fail(Errc::invalid, "{} bytes follow the last query", cursor.rest().size());
  }
  return found;
}
std::vector<std::byte> encode(const MetaQueries& queries) {
  std::vector<std::byte> out;
  append(out, be32(static_cast<uint32_t>(queries.name.size())));
  append_text(out, queries.name);
  append(out, be32(static_cast<uint32_t>(queries.queries.size())));
  for (const std::string_view query : queries.queries) {
    append(out, be32(static_cast<uint32_t>(query.size())));
    append_text(out, query);
  }
  return out;
}

Result<ServerEntry> decode_server_entry(View bytes) {
  Cursor cursor(bytes);
  ServerEntry entry;
  entry.name = TRY(take_string(cursor, "an export's name"));
  entry.description = TRY(decode_string(cursor.rest(), "an export's description"));
  return entry;
}
std::vector<std::byte> encode(const ServerEntry& entry) {
  std::vector<std::byte> out;
  append(out, be32(static_cast<uint32_t>(entry.name.size())));
  append_text(out, entry.name);
  append_text(out, entry.description);
  return out;
}

Result<MetaContextEntry> decode_meta_context_entry(View bytes) {
  Cursor cursor(bytes);
  be32 id;
  if (!cursor.take(id)) return fail(Errc::invalid, "a metadata context's id is cut off");
  return MetaContextEntry{id, TRY(decode_string(cursor.rest(), "a metadata context's name"))};
}
std::vector<std::byte> encode(const MetaContextEntry& entry) {
  std::vector<std::byte> out;
  append(out, be32(entry.id));
  append_text(out, entry.name);
  return out;
}

std::vector<std::byte> encode(const InfoText& info) {
  std::vector<std::byte> out;
  append(out, be16(static_cast<uint16_t>(info.type)));
  append_text(out, info.text);
  return out;
}
Result<Info> decode_info_type(View bytes) {
  if (bytes.size() < sizeof(be16)) return fail(Errc::invalid, "an information's type is cut off");
  return static_cast<Info>(uint16_t{load<be16>(bytes)});
}
Result<InfoExport> decode_info_export(View bytes) {
  TRY(expect_bytes(bytes, sizeof(InfoExport), "the export's size and flags"));
  const auto info = load<InfoExport>(bytes);
  if (info.type != static_cast<uint16_t>(Info::exported)) {
    return fail(Errc::invalid, "information {} is not the export's", uint16_t{info.type});
  }
  return info;
}
Result<InfoBlockSize> decode_info_block_size(View bytes) {
  TRY(expect_bytes(bytes, sizeof(InfoBlockSize), "the block sizes"));
  const auto info = load<InfoBlockSize>(bytes);
  const uint32_t minimum = info.minimum;
  const uint32_t preferred = info.preferred;
  if (info.type != static_cast<uint16_t>(Info::block_size) || !std::has_single_bit(minimum) ||
      !std::has_single_bit(preferred) || minimum > preferred || info.maximum < preferred) {
    return fail(Errc::invalid, "block sizes {}/{}/{} make no sense", minimum, preferred,
                uint32_t{info.maximum});
  }
  return info;
}
Result<InfoText> decode_info_text(View bytes) {
  const Info type = TRY(decode_info_type(bytes));
  if (type != Info::name && type != Info::description) {
    return fail(Errc::invalid, "information {} is no text", static_cast<uint16_t>(type));
  }
  return InfoText{type, TRY(decode_string(bytes.subspan(sizeof(be16)), "an information text"))};
}

Result<Request> decode_request(View bytes, Form form) {
  TRY(expect_bytes(bytes, request_bytes(form), "a request"));
  if (form == Form::extended) {
    const auto raw = load<RawExtendedRequest>(bytes);
    TRY(expect_magic(raw.magic, kExtendedRequestMagic, "a request"));
    return request_of(raw);
  }
  const auto raw = load<RawRequest>(bytes);
  TRY(expect_magic(raw.magic, kRequestMagic, "a request"));
  return request_of(raw);
}
size_t encode(const Request& request, Form form, Bytes into) {
  if (form == Form::extended) {
    RawExtendedRequest raw;
    raw.flags = request.flags;
    raw.command = static_cast<uint16_t>(request.command);
    raw.cookie = request.cookie;
    raw.offset = request.offset;
    raw.length = request.length;
    return put(into, 0, raw);
  }
  CHECK(request.length <= UINT32_MAX);
  RawRequest raw;
  raw.flags = request.flags;
  raw.command = static_cast<uint16_t>(request.command);
  raw.cookie = request.cookie;
  raw.offset = request.offset;
  raw.length = static_cast<uint32_t>(request.length);
  return put(into, 0, raw);
}

uint16_t allowed_flags(Command command, Form form) {
  const uint16_t payload = form == Form::extended ? kFlagPayloadLen : uint16_t{0};
  switch (command) {
    case Command::read:
      return kFlagFua | (form == Form::simple ? uint16_t{0} : kFlagDf);
    case Command::write:
      return kFlagFua | payload;
    case Command::write_zeroes:
      return kFlagFua | kFlagNoHole | kFlagFastZero;
    case Command::block_status:
      return kFlagFua | kFlagReqOne | payload;
    case Command::disconnect:
    case Command::flush:
    case Command::trim:
    case Command::cache:
      return kFlagFua;
  }
  return kFlagFua;
}

Result<StatusFilter> decode_status_filter(View bytes) {
  if (bytes.size() < sizeof(be64) + sizeof(be32) ||
      (bytes.size() - sizeof(be64)) % sizeof(be32) != 0) {
    return fail(Errc::invalid, "a block status filter of {} bytes is not 8 + 4 n", bytes.size());
  }
  return StatusFilter{load<be64>(bytes), (bytes.size() - sizeof(be64)) / sizeof(be32)};
}
uint32_t filter_id(View bytes, size_t index) {
  return load<be32>(bytes.subspan(sizeof(be64) + index * sizeof(be32)));
}

size_t encode(const ReplyChunk& chunk, Form form, Bytes into) {
  if (form == Form::extended) {
    RawExtendedChunk raw;
    raw.flags = chunk.flags;
    raw.type = static_cast<uint16_t>(chunk.type);
    raw.cookie = chunk.cookie;
    raw.offset = chunk.offset;
    raw.length = chunk.length;
    return put(into, 0, raw);
  }
  CHECK(form == Form::structured && chunk.length <= UINT32_MAX);
  RawChunk raw;
  raw.flags = chunk.flags;
  raw.type = static_cast<uint16_t>(chunk.type);
  raw.cookie = chunk.cookie;
  raw.length = static_cast<uint32_t>(chunk.length);
  return put(into, 0, raw);
}
Result<ReplyChunk> decode_reply_chunk(View bytes, Form form) {
  TRY(expect_bytes(bytes, chunk_bytes(form), "a reply"));
  if (form == Form::extended) {
    const auto raw = load<RawExtendedChunk>(bytes);
    TRY(expect_magic(raw.magic, kExtendedReplyMagic, "a reply"));
    return ReplyChunk{raw.flags, static_cast<Chunk>(uint16_t{raw.type}), raw.cookie, raw.offset,
                      raw.length};
  }
  const auto raw = load<RawChunk>(bytes);
  TRY(expect_magic(raw.magic, kStructuredReplyMagic, "a reply"));
  return ReplyChunk{raw.flags, static_cast<Chunk>(uint16_t{raw.type}), raw.cookie, 0, raw.length};
}
Result<SimpleReply> decode_simple_reply(View bytes) {
  TRY(expect_bytes(bytes, sizeof(SimpleReply), "a reply"));
  const auto reply = load<SimpleReply>(bytes);
  TRY(expect_magic(reply.magic, kSimpleReplyMagic, "a reply"));
  return reply;
}

Result<ErrorChunk> decode_error_chunk(View payload, Chunk type) {
  Cursor cursor(payload);
  ErrorText head;
  View text;
  ErrorChunk found;
  if (!cursor.take(head) || !cursor.take(uint16_t{head.text_length}, text)) {
    return fail(Errc::invalid, "an error reply of {} bytes is cut off", payload.size());
  }
  if (head.error == 0) return fail(Errc::invalid, "an error reply says that there is no error");
  found.error = static_cast<Errno>(uint32_t{head.error});
  found.text = TRY(decode_string(text, "an error's text"));
  if (type == Chunk::error_offset) {
    be64 offset;
    if (!cursor.take(offset)) return fail(Errc::invalid, "an error's offset is cut off");
    found.has_offset = true;
    found.offset = offset;
  }
  if (!cursor.rest().empty()) return fail(Errc::invalid, "bytes follow an error reply");
  return found;
}

Result<StatusChunk> decode_status_chunk(View payload, Chunk type) {
  const bool wide = type == Chunk::block_status_ext;
  const size_t head = wide ? sizeof(StatusHeadExt) : sizeof(StatusHead);
  const size_t run = wide ? sizeof(StatusRunExt) : sizeof(StatusRun);
  if (payload.size() < head + run || (payload.size() - head) % run != 0) {
    return fail(Errc::invalid, "a block status of {} bytes has no whole runs", payload.size());
  }
  StatusChunk found;
  found.context = load<be32>(payload);
  const size_t count = (payload.size() - head) / run;
  if (wide) {
    const uint32_t said = load<StatusHeadExt>(payload).count;
    if (said != 0 && said != count) {
      return fail(Errc::invalid, "a block status says {} runs and holds {}", said, count);
    }
  }
  for (size_t i = 0; i < count; ++i) {
    const View at = payload.subspan(head + i * run);
    StatusChunk::Run each;
    if (wide) {
      const auto raw = load<StatusRunExt>(at);
      each = {raw.length, raw.flags};
    } else {
      const auto raw = load<StatusRun>(at);
      each = {raw.length, raw.flags};
    }
    if (each.length == 0) return fail(Errc::invalid, "a block status holds an empty run");
    found.runs.push_back(each);
  }
  return found;
}

}  // namespace firn::wire::nbd
