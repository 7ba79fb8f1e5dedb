// SPDX-License-Identifier: Apache-2.0
#include "sim/world.h"

#include <fnmatch.h>

#include <algorithm>

#include "base/check.h"
#include "base/prng.h"

namespace firn::sim {
namespace {

constexpr int kLinksMax = 8;

uint64_t mix(uint64_t sum, uint64_t value) { return Prng(sum ^ value).next(); }
uint64_t mix(uint64_t sum, const std::string& text) {
  return mix(mix(sum, text.size()), crc32c(std::as_bytes(std::span(text.data(), text.size()))));
}

}  // namespace

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

bool matches(const std::string& pattern, const std::string& path) {
  return ::fnmatch(pattern.c_str(), path.c_str(), 0) == 0;
}

std::string State::resolve(const std::string& path) const {
  std::string at = path;
  for (int hops = 0; hops < kLinksMax; ++hops) {
    const auto found = names.find(at);
    if (found == names.end() || found->second.kind != Name::Kind::link) return at;
    const std::string& target = found->second.target;
    at = target.starts_with('/') ? target : directory_of(at) + "/" + target;
  }
  return at;
}

const Name* State::find(const std::string& path) const {
  const auto found = names.find(resolve(path));
  return found == names.end() ? nullptr : &found->second;
}

void State::apply(const Change& change) { apply_part(change, 0, change.length); }

void State::apply_part(const Change& change, uint64_t skip, uint64_t length) {
  switch (change.kind) {
    case ChangeKind::write:
      files[change.file].image.write(change.at + skip, View(change.data).subspan(skip, length));
      return;
    case ChangeKind::punch:
      files[change.file].image.punch(change.at, change.length);
      return;
    case ChangeKind::resize:
      files[change.file].image.resize(change.length);
      return;
    case ChangeKind::create:
      names[change.path] = {Name::Kind::file, change.file, {}};
      return;
    case ChangeKind::remove:
      names.erase(change.path);
      return;
    case ChangeKind::make_directory:
      names[change.path] = {Name::Kind::directory, kNoFile, {}};
      return;
    case ChangeKind::link:
      names[change.path] = {Name::Kind::link, kNoFile, change.target};
      return;
  }
}

// --- what the program does

FileId World::reserve_file(const std::string& path) {
  // In both: a file without a name costs nothing, and identities are the same in every state.
  const auto id = static_cast<FileId>(now_.files.size());
  now_.files.push_back({path, {}, {}});
  origin_.files.push_back({path, {}, {}});
  return id;
}

uint64_t World::issue(Change change) {
  if (change.kind == ChangeKind::write) change.length = change.data.size();
  const FileId file = change.file;
  changes_.push_back(std::make_shared<const Change>(std::move(change)));
  note({EventKind::issued, file, changes_.size() - 1, 0});
  return changes_.size() - 1;
}

void World::cure(const Change& change, uint64_t length) {
  if (change.kind != ChangeKind::write) return;
  const Range written{change.at, length};
  std::erase_if(now_.files[change.file].unreadable,
                [&](Range bad) { return written.at <= bad.at && bad.end() <= written.end(); });
}

void World::complete(uint64_t number) {
  std::shared_ptr<const Change>& change = changes_[number];
  now_.apply(*change);
  if (!now_.files.empty() && change->file != kNoFile) cure(*change, change->length);
  note({EventKind::completed, change->file, number, 0});
  if (!recording_) change.reset();  // Nobody will ask.
}

void World::fail(uint64_t number, uint64_t length) {
  std::shared_ptr<const Change>& change = changes_[number];
  const bool write = change->kind == ChangeKind::write;
  if (length > 0) now_.apply_part(*change, 0, write ? length : change->length);
  note({EventKind::failed, change->file, number, length});
  if (!recording_) change.reset();
}

uint64_t World::begin_flush(FileId file) {
  flush_paths_.emplace_back();
  flush_files_.push_back(file);
  note({EventKind::flush_begun, file, flush_files_.size() - 1, 0});
  return flush_files_.size() - 1;
}

uint64_t World::begin_directory_flush(const std::string& path) {
  flush_paths_.push_back(path);
  flush_files_.push_back(kNoFile);
  note({EventKind::flush_begun, kNoFile, flush_files_.size() - 1, 0});
  return flush_files_.size() - 1;
}

void World::complete_flush(uint64_t flush) {
  note({EventKind::flush_completed, flush_files_[flush], flush, 0});
}

// --- what a test does

void World::mark(uint64_t value) { note({EventKind::mark, kNoFile, value, 0}); }

void World::settle() {
  origin_ = now_;
  events_.clear();
  changes_.clear();
  flush_paths_.clear();
  flush_files_.clear();
}

void World::make_directory(const std::string& path) {
  complete(issue({.kind = ChangeKind::make_directory, .data = {}, .path = path, .target = {}}));
}

FileId World::file_at(const std::string& path) const {
  const Name* name = now_.find(path);
  CHECK(name != nullptr && name->kind == Name::Kind::file, "no file {} in this world", path);
  return name->file;
}

void World::flip_bit(const std::string& path, uint64_t at, unsigned bit) {
  Change change;
  change.file = file_at(path);
  change.at = at;
  change.data.resize(1);
  now_.files[change.file].image.read(at, change.data);
  change.data[0] ^= std::byte{1} << (bit % 8);
  complete(issue(std::move(change)));
}

void World::make_unreadable(const std::string& path, Range range) {
  const FileId file = file_at(path);
  now_.files[file].unreadable.push_back(range);
  origin_.files[file].unreadable.push_back(range);
}

void World::set_capacity(const std::string& pattern, uint64_t bytes) {
  capacity_pattern_ = pattern;
  capacity_ = bytes;
}

bool World::fits(FileId file, uint64_t at, uint64_t length) const {
  if (capacity_ == UINT64_MAX || !matches(capacity_pattern_, now_.files[file].path)) return true;
  uint64_t used = now_.files[file].image.pages_missing(at, length) * PageTree::kPage;
  for (const FileState& each : now_.files) {
    if (matches(capacity_pattern_, each.path)) used += each.image.bytes_allocated();
  }
  return used <= capacity_;
}

bool World::unreadable(FileId file, uint64_t at, uint64_t length) const {
  const Range wanted{at, length};
  const std::vector<Range>& bad = now_.files[file].unreadable;
  return std::any_of(bad.begin(), bad.end(), [&](Range each) { return each.overlaps(wanted); });
}

std::vector<std::byte> World::content(const std::string& path) const {
  return content(path, {0, now_.files[file_at(path)].image.size()});
}

std::vector<std::byte> World::content(const std::string& path, Range range) const {
  std::vector<std::byte> bytes(range.length);
  now_.files[file_at(path)].image.read(range.at, bytes);
  return bytes;
}

uint64_t World::hash() const {
  uint64_t sum = 0;
  for (const auto& [path, name] : now_.names) {
    sum = mix(mix(mix(sum, path), static_cast<uint64_t>(name.kind)), name.target);
    if (name.kind == Name::Kind::file) sum = mix(sum, now_.files[name.file].image.hash());
  }
  return sum;
}

bool World::try_lock(FileId file, bool exclusive) {
  Lock& lock = locks_[file];
  if (lock.exclusive || (exclusive && lock.shared > 0)) return false;
  exclusive ? (void)(lock.exclusive = true) : (void)++lock.shared;
  return true;
}

void World::unlock(FileId file, bool exclusive) {
  Lock& lock = locks_[file];
  exclusive ? (void)(lock.exclusive = false) : (void)--lock.shared;
}

}  // namespace firn::sim
