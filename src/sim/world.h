// SPDX-License-Identifier: Apache-2.0
// World: the simulated files, and the log of everything that happened to them.
//
// Contract:
//  S1  What a running program sees (the volatile state) changes when a change completes; the log
//      tells what of it a crash may take back (see crash.h).
//  S2  Copying a world copies no file content. A copy has the log too; Crash's images have none.
//  S3  Names are flat text: "/pool/data". A directory must exist before something is made in it;
//      the root ("") always does.
//
// Does not wait, knows no time and no chance: SimIo adds those.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/units.h"
#include "sim/pages.h"

namespace firn::sim {

using FileId = uint32_t;
inline constexpr FileId kNoFile = UINT32_MAX;

enum class ChangeKind : uint8_t { write, punch, resize, create, remove, make_directory, link };

// One change of the world. Changes of names carry a path, changes of content a file.
struct Change {
  ChangeKind kind = ChangeKind::write;
  FileId file = kNoFile;
  uint64_t at = 0;
  uint64_t length = 0;  // Of a write or punch; the new size for a resize.
  std::vector<std::byte> data;
  std::string path;
  std::string target;  // Of a link.
};

enum class EventKind : uint8_t {
  issued,           // number: the change. From here on a crash may show it.
  completed,        // number: the change. From here on the program sees it.
  failed,           // number: the change; length: what of it happened nevertheless.
  flush_begun,      // number: the flush, of `file` or of the directory `path_of(number)`.
  flush_completed,  // number: the flush. Everything completed before it began is durable.
  mark,             // number: the user's.
};

struct Event {
  EventKind kind = EventKind::mark;
  FileId file = kNoFile;
  uint64_t number = 0;
  uint64_t length = 0;
};

struct Name {
  enum class Kind : uint8_t { file, directory, link };
  Kind kind = Kind::file;
  FileId file = kNoFile;
  std::string target;
};

struct FileState {
  std::string path;  // Its first name: for patterns and messages.
  Image image;
  std::vector<Range> unreadable;  // Latent errors; cured by writing over them.
};

// Files and names at one moment.
struct State {
  std::vector<FileState> files;
  std::map<std::string, Name> names;

  void apply(const Change& change);
  // The same for `length` bytes of a write from its byte `skip` on.
  void apply_part(const Change& change, uint64_t skip, uint64_t length);
  // Follows links; null when there is nothing.
  const Name* find(const std::string& path) const;
  // Where `path` leads to when links are followed; may not exist.
  std::string resolve(const std::string& path) const;
};

std::string directory_of(const std::string& path);
bool matches(const std::string& pattern,
             const std::string& path);  // Shell pattern; '*' crosses '/'.

// Zeroes that cost nothing until they are touched: thousands of worlds have some.
class LastingBytes {
 public:
  explicit LastingBytes(size_t bytes)
      : data_(static_cast<std::byte*>(std::calloc(bytes, 1))), size_(bytes) {
    CHECK(data_ != nullptr, "out of memory: {} bytes", bytes);
  }
  ~LastingBytes() { std::free(data_); }
  LastingBytes(const LastingBytes&) = delete;
  LastingBytes& operator=(const LastingBytes&) = delete;
  Bytes bytes() const { return {data_, size_}; }

 private:
  std::byte* data_;
  size_t size_;
};

// By path. A copy of a world is another machine: it has none of it.
struct LastingMemories {
  LastingMemories() = default;
  LastingMemories(const LastingMemories&) {}
  LastingMemories& operator=(const LastingMemories&) {
    kept.clear();
    return *this;
  }
  LastingMemories(LastingMemories&&) = default;
  LastingMemories& operator=(LastingMemories&&) = default;
  std::map<std::string, std::shared_ptr<LastingBytes>> kept{};
};

class World {
 public:
  World() = default;
  explicit World(State state) : origin_(state), now_(std::move(state)) {}

  // --- what the program does (SimIo calls these)
  uint64_t issue(Change change);
  void complete(uint64_t change);
  // The first `length` bytes happened nevertheless (writes; for others all or nothing).
  void fail(uint64_t change, uint64_t length);
  uint64_t begin_flush(FileId file);
  uint64_t begin_directory_flush(const std::string& path);
  void complete_flush(uint64_t flush);
  FileId reserve_file(const std::string& path);  // An identity for a file about to be created.

  // --- what a test does
  // An acknowledgement, or whatever the test must know about the moment.
  void mark(uint64_t value);
  // Everything so far is durable, and the log begins here: the end of a set-up.
  void settle();
  // Off: nothing is logged, so nothing can be enumerated later; for worlds that are only looked at.
  void record(bool on) { recording_ = on; }
  void make_directory(const std::string& path);
  // Faults of the medium. The file must exist.
  void flip_bit(const std::string& path, uint64_t at, unsigned bit);
  void make_unreadable(const std::string& path, Range range);
  // Files that match share so many bytes of space. The last call wins.
  void set_capacity(const std::string& pattern, uint64_t bytes);
  // Straight to the content, without a log entry: set-up and inspection.
  std::vector<std::byte> content(const std::string& path) const;
  std::vector<std::byte> content(const std::string& path, Range range) const;
  uint64_t hash() const;  // Of all names and contents.

  const State& now() const { return now_; }
  const State& origin() const { return origin_; }
  const std::vector<Event>& events() const { return events_; }
  const Change& change(uint64_t number) const { return *changes_[number]; }
  const std::string& flush_path(uint64_t flush) const { return flush_paths_[flush]; }
  bool fits(FileId file, uint64_t at, uint64_t length) const;
  bool unreadable(FileId file, uint64_t at, uint64_t length) const;

  // Memory that outlives a process, by path.
  std::map<std::string, std::shared_ptr<LastingBytes>>& lasting() { return lasting_.kept; }

  // --- advisory locks; a crash releases them
  bool try_lock(FileId file, bool exclusive);
  void unlock(FileId file, bool exclusive);

 private:
  struct Lock {
    uint32_t shared = 0;
    bool exclusive = false;
  };
  FileId file_at(const std::string& path) const;
  void note(Event event) {
    if (recording_) events_.push_back(event);
  }
  void cure(const Change& change, uint64_t length);

  State origin_;  // At the beginning of the log; all of it durable.
  State now_;     // What the program sees.
  std::vector<Event> events_;
  std::vector<std::shared_ptr<const Change>> changes_;
  std::vector<std::string> flush_paths_;  // By flush; empty for flushes of files.
  std::vector<FileId> flush_files_;
  std::map<FileId, Lock> locks_;
  LastingMemories lasting_;
  std::string capacity_pattern_;
  uint64_t capacity_ = UINT64_MAX;
  bool recording_ = true;
};

}  // namespace firn::sim
