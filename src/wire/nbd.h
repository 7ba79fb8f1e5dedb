// SPDX-License-Identifier: Apache-2.0
// NBD's bytes: every structure of the fixed newstyle handshake and of the transmission phase.
//
// Contract:
//  N1  decode_* believes nothing: lengths are bounded before use, counts are checked against
//      what is there, and no sum wraps. What it returns may be believed; text it returns points
//      into its input.
//  N2  A decoder takes the whole structure; who calls it has gathered the bytes (the sizes are
//      constants, or were in the header before).
//  N3  encode(decode(x)) == x for every structure that is accepted.
//
// Knows no export, no session and no socket: which option may follow which is serve's matter. The
// protocol is the NBD project's (doc/proto.md); the numbers are theirs.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace firn::wire::nbd {

// --- limits

inline constexpr uint32_t kStringMax = 4096;            // Names and messages, by the protocol.
inline constexpr uint32_t kOptionBytesMax = 64 * 1024;  // Data of one option that we look at.
inline constexpr uint32_t kQueriesMax = 1024;           // Queries in one metadata context option.
inline constexpr uint64_t kPayloadAdvertised = 32 << 20;
inline constexpr uint64_t kPayloadMax = 64 << 20;  // Tolerated; beyond, nobody believes the header.

// --- magic numbers

inline constexpr uint64_t kServerMagic = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr uint64_t kOptionReplyMagic = 0x0003e889045565a9;
inline constexpr uint32_t kRequestMagic = 0x25609513;
inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr uint32_t kStructuredReplyMagic = 0x668e33ef;
inline constexpr uint32_t kExtendedRequestMagic = 0x21e41c71;
inline constexpr uint32_t kExtendedReplyMagic = 0x6e8a278c;

// --- flags

inline constexpr uint16_t kFixedNewstyle = 1 << 0;  // Handshake flags, and the client's answer.
inline constexpr uint16_t kNoZeroes = 1 << 1;

inline constexpr uint16_t kHasFlags = 1 << 0;  // Transmission flags.
inline constexpr uint16_t kReadOnly = 1 << 1;
inline constexpr uint16_t kSendFlush = 1 << 2;
inline constexpr uint16_t kSendFua = 1 << 3;
inline constexpr uint16_t kRotational = 1 << 4;
inline constexpr uint16_t kSendTrim = 1 << 5;
inline constexpr uint16_t kSendWriteZeroes = 1 << 6;
inline constexpr uint16_t kSendDf = 1 << 7;
inline constexpr uint16_t kCanMultiConn = 1 << 8;
inline constexpr uint16_t kSendCache = 1 << 10;
inline constexpr uint16_t kSendFastZero = 1 << 11;
inline constexpr uint16_t kBlockStatusPayload = 1 << 12;

inline constexpr uint16_t kFlagFua = 1 << 0;  // Command flags.
inline constexpr uint16_t kFlagNoHole = 1 << 1;
inline constexpr uint16_t kFlagDf = 1 << 2;
inline constexpr uint16_t kFlagReqOne = 1 << 3;
inline constexpr uint16_t kFlagFastZero = 1 << 4;
inline constexpr uint16_t kFlagPayloadLen = 1 << 5;

inline constexpr uint16_t kReplyDone = 1 << 0;  // Structured reply flags.

inline constexpr uint32_t kStateHole = 1 << 0;  // base:allocation.
inline constexpr uint32_t kStateZero = 1 << 1;

// --- enumerations. Values come from the network: an enum may hold a number that is not listed.

enum class Option : uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
  extended_headers = 11,
};

enum class OptionReply : uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  error_unsupported = 0x80000001,
  error_policy = 0x80000002,
  error_invalid = 0x80000003,
  error_platform = 0x80000004,
  error_tls_required = 0x80000005,
  error_unknown = 0x80000006,
  error_shutdown = 0x80000007,
  error_block_size_required = 0x80000008,
  error_too_big = 0x80000009,
  error_extended_headers_required = 0x8000000a,
};
constexpr bool is_error(OptionReply reply) { return (static_cast<uint32_t>(reply) >> 31) != 0; }

enum class Info : uint16_t { exported = 0, name = 1, description = 2, block_size = 3 };

enum class Command : uint16_t {
  read = 0,
  write = 1,
  disconnect = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
};
inline constexpr size_t kCommands = 8;

enum class Chunk : uint16_t {
  none = 0,
  offset_data = 1,
  offset_hole = 2,
  block_status = 5,
  block_status_ext = 6,
  error = 0x8001,
  error_offset = 0x8002,
};

// The protocol's own error numbers; they happen to be Linux's.
enum class Errno : uint32_t {
  none = 0,
  perm = 1,
  io = 5,
  no_memory = 12,
  invalid = 22,
  no_space = 28,
  overflow = 75,
  unsupported = 95,
  shutdown = 108,
};

// "read", "write", ...; "command 77" needs the number, so "unknown".
std::string_view name_of(Command command);
std::string_view name_of(Option option);

// --- the handshake

struct Greeting {  // Server to client, once.
  be64 magic = kServerMagic;
  be64 option_magic = kOptionMagic;
  be16 flags = kFixedNewstyle | kNoZeroes;
};
static_assert(OnDisk<Greeting, 18>);
// Checks both magics; gives the handshake flags. For clients.
Result<uint16_t> decode_greeting(View bytes);

inline constexpr size_t kClientFlagsBytes = 4;
// Only kFixedNewstyle and kNoZeroes may be set.
Result<uint32_t> decode_client_flags(View bytes);

struct OptionHeader {
  Option option{};
  uint32_t length = 0;  // Of the data that follows. Not bounded yet: see kOptionBytesMax.
};
inline constexpr size_t kOptionHeaderBytes = 16;
Result<OptionHeader> decode_option_header(View bytes);
std::array<std::byte, kOptionHeaderBytes> encode(OptionHeader header);

struct OptionReplyHeader {
  Option option{};
  OptionReply reply{};
  uint32_t length = 0;
};
inline constexpr size_t kOptionReplyHeaderBytes = 20;
Result<OptionReplyHeader> decode_option_reply_header(View bytes);
std::array<std::byte, kOptionReplyHeaderBytes> encode(OptionReplyHeader header);

// At most kStringMax bytes of UTF-8 without NUL.
Result<std::string_view> decode_string(View bytes, const char* what);

// The data of NBD_OPT_INFO and NBD_OPT_GO.
struct InfoRequest {
  std::string_view name;
  bool wants_name = false;
  bool wants_description = false;
  bool wants_block_size = false;
};
Result<InfoRequest> decode_info_request(View bytes);
std::vector<std::byte> encode(const InfoRequest& request);

// The data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
struct MetaQueries {
  std::string_view name;
  std::vector<std::string_view> queries;
};
Result<MetaQueries> decode_meta_queries(View bytes);
std::vector<std::byte> encode(const MetaQueries& queries);

// The data of NBD_REP_SERVER.
struct ServerEntry {
  std::string_view name;
  std::string_view description;
};
Result<ServerEntry> decode_server_entry(View bytes);
std::vector<std::byte> encode(const ServerEntry& entry);

// The data of NBD_REP_META_CONTEXT.
struct MetaContextEntry {
  uint32_t id = 0;
  std::string_view name;
};
Result<MetaContextEntry> decode_meta_context_entry(View bytes);
std::vector<std::byte> encode(const MetaContextEntry& entry);

// The data of NBD_REP_INFO, one struct per Info.
struct InfoExport {
  be16 type = static_cast<uint16_t>(Info::exported);
  be64 bytes;
  be16 flags;
};
static_assert(OnDisk<InfoExport, 12>);
struct InfoBlockSize {
  be16 type = static_cast<uint16_t>(Info::block_size);
  be32 minimum;
  be32 preferred;
  be32 maximum;
};
static_assert(OnDisk<InfoBlockSize, 14>);
struct InfoText {  // Info::name and Info::description.
  Info type{};
  std::string_view text;
};
std::vector<std::byte> encode(const InfoText& info);
Result<Info> decode_info_type(View bytes);
Result<InfoExport> decode_info_export(View bytes);
Result<InfoBlockSize> decode_info_block_size(View bytes);
Result<InfoText> decode_info_text(View bytes);

// What answers NBD_OPT_EXPORT_NAME; followed by 124 zeroes unless kNoZeroes was agreed.
struct ExportNameReply {
  be64 bytes;
  be16 flags;
};
static_assert(OnDisk<ExportNameReply, 10>);
inline constexpr size_t kExportNameZeroes = 124;

// --- transmission

// How headers look, as the handshake agreed.
enum class Form : uint8_t { simple, structured, extended };

struct Request {
  uint16_t flags = 0;
  Command command{};
  uint64_t cookie = 0;
  uint64_t offset = 0;
  uint64_t length = 0;  // Of the payload if has_payload(), else of the effect.
};
inline constexpr size_t kRequestBytes = 28;
inline constexpr size_t kExtendedRequestBytes = 32;
constexpr size_t request_bytes(Form form) {
  return form == Form::extended ? kExtendedRequestBytes : kRequestBytes;
}
// Checks the magic, nothing else: an unknown command still has a cookie to answer.
Result<Request> decode_request(View bytes, Form form);
// Writes request_bytes(form); gives their number.
size_t encode(const Request& request, Form form, Bytes into);
// Whether `length` bytes follow the header.
constexpr bool has_payload(const Request& request, Form form) {
  return form == Form::extended ? (request.flags & kFlagPayloadLen) != 0
                                : request.command == Command::write;
}
// Which flags the command may carry; FUA is allowed everywhere, as the protocol demands.
uint16_t allowed_flags(Command command, Form form);

// The payload by which a client narrows NBD_CMD_BLOCK_STATUS: 8 bytes, then ids.
struct StatusFilter {
  uint64_t length = 0;  // The effect length.
  size_t count = 0;     // Of ids, at least 1.
};
Result<StatusFilter> decode_status_filter(View bytes);
uint32_t filter_id(View bytes, size_t index);

struct SimpleReply {
  be32 magic = kSimpleReplyMagic;
  be32 error;
  be64 cookie;
};
static_assert(OnDisk<SimpleReply, 16>);

struct ReplyChunk {  // Of either wide form.
  uint16_t flags = 0;
  Chunk type{};
  uint64_t cookie = 0;
  uint64_t offset = 0;  // The request's. Not on the wire in the structured form.
  uint64_t length = 0;  // Of the payload.
};
inline constexpr size_t kStructuredChunkBytes = 20;
inline constexpr size_t kExtendedChunkBytes = 32;
constexpr size_t chunk_bytes(Form form) {
  return form == Form::extended ? kExtendedChunkBytes : kStructuredChunkBytes;
}
size_t encode(const ReplyChunk& chunk, Form form, Bytes into);
Result<ReplyChunk> decode_reply_chunk(View bytes, Form form);
Result<SimpleReply> decode_simple_reply(View bytes);

// What begins the payload of a chunk, by its type.
struct OffsetData {
  be64 offset;  // The data follows.
};
static_assert(OnDisk<OffsetData, 8>);
struct OffsetHole {
  be64 offset;
  be32 length;
};
static_assert(OnDisk<OffsetHole, 12>);
struct ErrorText {
  be32 error;
  be16 text_length;  // The text follows; for Chunk::error_offset a be64 offset after it.
};
static_assert(OnDisk<ErrorText, 6>);
struct StatusHead {
  be32 context;
};
struct StatusRun {
  be32 length;
  be32 flags;
};
static_assert(OnDisk<StatusRun, 8>);
struct StatusHeadExt {
  be32 context;
  be32 count;
};
struct StatusRunExt {
  be64 length;
  be64 flags;
};
static_assert(OnDisk<StatusRunExt, 16>);

// The same, decoded; for clients.
struct ErrorChunk {
  Errno error{};
  std::string_view text;
  bool has_offset = false;
  uint64_t offset = 0;
};
Result<ErrorChunk> decode_error_chunk(View payload, Chunk type);
struct StatusChunk {
  uint32_t context = 0;
  struct Run {
    uint64_t length = 0;
    uint64_t flags = 0;
  };
  std::vector<Run> runs;
};
Result<StatusChunk> decode_status_chunk(View payload, Chunk type);

}  // namespace firn::wire::nbd
