// SPDX-License-Identifier: Apache-2.0
// The secrets of an archive, and what is made with them: identities of blocks, and sealed bytes.
//
//  K1  An identity is HMAC-SHA-256 under the archive's own secret: who does not have it can neither
//      test for content nor compare two archives.
//  K2  Each object is encrypted under a key of its own, made from the content key and its fresh
//      salt; the number of the group is the nonce. No pair of key and nonce is used twice.
//  K3  What identifies the object (archive, disk, segment) is authenticated with each group: one in
//      another place is refused.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "format/archive_label.h"
#include "format/segment.h"
#include "io/io.h"

namespace firn::archive {

using Key = std::array<std::byte, 32>;

// What the user gave to open an encrypted archive with.
struct Credentials {
  format::KeySource source = format::KeySource::none;
  std::string bytes;  // The key file's content, or the passphrase.
};

// From a key file, or the first line of a passphrase file; with neither, none.
Result<Credentials> read_credentials(Io& io, const std::string& key_file,
                                     const std::string& passphrase_file);

struct Secrets {
  bool encrypted = false;
  Key identity{};
  Key content{};
};

// Fresh secrets, wrapped into the label as the credentials say.
Result<Secrets> make_secrets(format::ArchiveLabel& label, const Credentials& credentials);
// Errc::invalid: no credentials for an encrypted archive, or the wrong ones.
Result<Secrets> unlock(const format::ArchiveLabel& label, const Credentials& credentials);
// Bytes that nobody can guess.
void random_bytes(Bytes into);

// Identifies blocks. One thread at a time.
class Identifier {
 public:
  explicit Identifier(const Key& secret);
  ~Identifier();
  Identifier(const Identifier&) = delete;
  Identifier& operator=(const Identifier&) = delete;
  format::Identity identify(View block);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Encrypts and decrypts the parts of one object. Any thread; verbs share nothing.
class Seal {
 public:
  Seal(const Secrets& secrets, const format::SegmentHeader& header);
  bool active() const { return active_; }
  // `to` is kSealBytes longer than `plain`. The index is number kIndex.
  static constexpr uint32_t kIndex = UINT32_MAX;
  void close(uint32_t number, View plain, Bytes to) const;
  // Errc::corrupt when it was not made with this key, for this place.
  Result<void> open(uint32_t number, View sealed, Bytes to) const;

 private:
  bool active_;
  Key key_{};
  std::array<std::byte, 40> place_{};
};

}  // namespace firn::archive
