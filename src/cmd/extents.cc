// SPDX-License-Identifier: Apache-2.0
// firn changes diff | allocated, firn snapshot diff: extents, page by page, in a stream. The shape
// of the JSON is that of CSI's SnapshotMetadata: who is interrupted goes on at the end of the last
// extent.
#include <algorithm>

#include "cmd/commands.h"
#include "cmd/print.h"
#include "cmd/session.h"
#include "wire/text.h"

namespace firn::cmd {
namespace {

using wire::ControlRequest;
using wire::ControlVerb;

constexpr uint64_t kPage = 10'000;

// Extents of one stream, as lines; at the end, in text, what they come to.
class Stream {
 public:
  explicit Stream(bool json) : json_(json) {}

  std::string begin() const { return json_ ? "[" : ""; }
  std::string add(const std::vector<ExtentLine>& extents) {
    std::string text;
    for (const ExtentLine& each : extents) {
      text += json_ ? json_line(each) : text_line(each);
      ++count_;
      (each.kind == "data" ? data_bytes_ : zero_bytes_) += each.length;
    }
    return text;
  }
  std::string end() const { return json_ ? (count_ == 0 ? "]\n" : "\n]\n") : ""; }
  std::string summary() const {
    return fmt::format("{} extent{}: {} of data, {} that now read as zeroes\n", count_,
                       count_ == 1 ? "" : "s", wire::text_of_size(data_bytes_),
                       wire::text_of_size(zero_bytes_));
  }
  uint64_t count() const { return count_; }

 private:
  std::string json_line(const ExtentLine& each) const {
    return fmt::format("{}\n  {{\"offset\": {}, \"length\": {}, \"kind\": \"{}\"}}",
                       count_ == 0 ? "" : ",", each.offset, each.length,
                       wire::printable(each.kind));
  }
  std::string text_line(const ExtentLine& each) const {
    return fmt::format("{}{:>20}  {:>16}  {}\n", count_ == 0 ? kHead : "", each.offset, each.length,
                       wire::printable(each.kind));
  }

  static constexpr const char* kHead = "              OFFSET            LENGTH  KIND\n";
  bool json_;
  uint64_t count_ = 0;
  uint64_t data_bytes_ = 0;
  uint64_t zero_bytes_ = 0;
};

}  // namespace

Result<int> run_extents(FiberIo& io, const Arguments& arguments) {
  ControlRequest request;
  request.verb = ControlVerb::extents;
  request.name = arguments.name;
  request.base = arguments.base;
  request.offset = arguments.offset;
  std::unique_ptr<Session> session = TRY(Session::open(io, arguments.pool, Session::Purpose::look));
  const uint64_t limit = arguments.limit.value_or(UINT64_MAX);
  Stream stream(arguments.json);
  bool complete = false;
  for (bool first = true; !complete && stream.count() < limit; first = false) {
    request.limit = std::min(kPage, limit - stream.count());
    const std::string answer = TRY(session->ask(request));  // What is wrong is wrong at once.
    TRY(print((first ? stream.begin() : "") + stream.add(extents_of(answer))));
    complete = flag_member(answer, "complete");
    const uint64_t next = number_member(answer, "next");
    if (!complete && next <= request.offset) {
      return fail(Errc::io, "the daemon's answer does not go on from {}", request.offset);
    }
    request.offset = next;
  }
  TRY(session->close());
  TRY(print(stream.end()));
  if (arguments.command != Command::snapshot_diff || arguments.json) return kDone;
  TRY(print(stream.summary()));
  if (!complete) TRY(print(fmt::format("more from --offset {} on\n", request.offset)));
  return kDone;
}

}  // namespace firn::cmd
