// SPDX-License-Identifier: Apache-2.0
#include "archive/secrets.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>

#include "base/check.h"

namespace firn::archive {
namespace {

using format::ArchiveLabel;
using format::KeySource;

constexpr size_t kHashBlock = 64;  // Of SHA-256.

unsigned char* raw(Bytes bytes) {
  return static_cast<unsigned char*>(static_cast<void*>(bytes.data()));
}
const unsigned char* raw(View bytes) {
  return static_cast<const unsigned char*>(static_cast<const void*>(bytes.data()));
}
int length_of(View bytes) { return static_cast<int>(bytes.size()); }

struct Free {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Digest = std::unique_ptr<EVP_MD_CTX, Free>;
using Cipher = std::unique_ptr<EVP_CIPHER_CTX, Free>;

Key hmac(View key, View text) {
  Key out{};
  unsigned int length = 0;
  CHECK(HMAC(EVP_sha256(), key.data(), length_of(key), raw(text), text.size(), raw(Bytes(out)),
             &length) != nullptr &&
        length == out.size());
  return out;
}

constexpr std::string_view kFileContext = "firn archive: wrapping key from a file";

Result<Key> wrapping_key(const ArchiveLabel& label, const Credentials& credentials) {
  const View given = std::as_bytes(std::span(credentials.bytes));
  if (credentials.source == KeySource::file) {  // HKDF, one block of output.
    const Key extracted = hmac(label.salt, given);
    std::string expand(kFileContext);
    expand.push_back('\1');
    return hmac(extracted, std::as_bytes(std::span(expand)));
  }
  Key key{};
  const uint64_t n = uint64_t{1} << static_cast<uint8_t>(label.scrypt_n);
  const uint64_t r = static_cast<uint8_t>(label.scrypt_r);
  const uint64_t p = static_cast<uint8_t>(label.scrypt_p);
  const uint64_t memory = 128 * n * r + 128 * r * p + 64 * kKiB;
  if (EVP_PBE_scrypt(credentials.bytes.data(), credentials.bytes.size(), raw(View(label.salt)),
                     label.salt.size(), n, r, p, memory, raw(Bytes(key)), key.size()) == 1) {
    return key;
  }
  return fail(Errc::io, "archive: scrypt failed; it needs {} MiB of memory", memory / kMiB);
}

void encrypt(const Key& key, View nonce, View place, View plain, Bytes to, Bytes tag) {
  const Cipher cipher(EVP_CIPHER_CTX_new());
  int count = 0;
  CHECK(EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, raw(View(key)), raw(nonce)));
  CHECK(EVP_EncryptUpdate(cipher.get(), nullptr, &count, raw(place), length_of(place)) == 1);
  CHECK(EVP_EncryptUpdate(cipher.get(), raw(to), &count, raw(plain), length_of(plain)) == 1);
  CHECK(EVP_EncryptFinal_ex(cipher.get(), raw(to) + count, &count) == 1);
  CHECK(EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, length_of(tag), tag.data()) == 1);
}

bool decrypt(const Key& key, View nonce, View place, View sealed, View tag, Bytes to) {
  const Cipher cipher(EVP_CIPHER_CTX_new());
  int count = 0;
  CHECK(EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, raw(View(key)), raw(nonce)));
  CHECK(EVP_DecryptUpdate(cipher.get(), nullptr, &count, raw(place), length_of(place)) == 1);
  CHECK(EVP_DecryptUpdate(cipher.get(), raw(to), &count, raw(sealed), length_of(sealed)) == 1);
  CHECK(EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, length_of(tag),
                            const_cast<std::byte*>(tag.data())) == 1);
  return EVP_DecryptFinal_ex(cipher.get(), raw(to) + count, &count) == 1;
}

// What the wrapping authenticates: the label's first part, without its checksum.
View wrapped_place(const ArchiveLabel& label) {
  return view_of(label).subspan(offsetof(ArchiveLabel, uuid),
                                offsetof(ArchiveLabel, nonce) - offsetof(ArchiveLabel, uuid));
}

}  // namespace

void random_bytes(Bytes into) {
  CHECK(RAND_bytes(raw(into), length_of(into)) == 1, "the system gives no random numbers");
}

Result<Secrets> make_secrets(ArchiveLabel& label, const Credentials& credentials) {
  Secrets secrets;
  secrets.encrypted = credentials.source != KeySource::none;
  random_bytes(secrets.identity);
  label.key_source = static_cast<std::byte>(credentials.source);
  std::array<std::byte, 64> plain{};
  if (secrets.encrypted) random_bytes(secrets.content);
  std::memcpy(plain.data(), secrets.identity.data(), 32);
  std::memcpy(plain.data() + 32, secrets.content.data(), 32);
  if (!secrets.encrypted) {
    label.secrets = plain;
    return secrets;
  }
  random_bytes(label.salt);
  random_bytes(label.nonce);
  if (credentials.source == KeySource::passphrase) {
    label.scrypt_n = std::byte{15};  // 32 MiB, about 0.1 s.
    label.scrypt_r = std::byte{8};
    label.scrypt_p = std::byte{1};
  }
  const Key key = TRY(wrapping_key(label, credentials));
  encrypt(key, label.nonce, wrapped_place(label), plain, label.secrets, label.tag);
  return secrets;
}

Result<Secrets> unlock(const ArchiveLabel& label, const Credentials& credentials) {
  const auto source = static_cast<KeySource>(label.key_source);
  Secrets secrets;
  std::array<std::byte, 64> plain = label.secrets;
  if (source != KeySource::none) {
    if (credentials.source != source) {
      return fail(Errc::invalid, "the archive is encrypted: give {}",
                  source == KeySource::file ? "its key file with --key-file"
                                            : "its passphrase with --passphrase-file");
    }
    const Key key = TRY(wrapping_key(label, credentials));
    if (!decrypt(key, label.nonce, wrapped_place(label), label.secrets, label.tag, plain)) {
      return fail(Errc::invalid, "this {} does not open the archive",
                  source == KeySource::file ? "key file" : "passphrase");
    }
    secrets.encrypted = true;
  }
  std::memcpy(secrets.identity.data(), plain.data(), 32);
  std::memcpy(secrets.content.data(), plain.data() + 32, 32);
  return secrets;
}

// --- identities: the padded keys are hashed once

struct Identifier::State {
  Digest inner{EVP_MD_CTX_new()};
  Digest outer{EVP_MD_CTX_new()};
  Digest work{EVP_MD_CTX_new()};
};

Identifier::Identifier(const Key& secret) : state_(std::make_unique<State>()) {
  for (const bool inner : {true, false}) {
    std::array<std::byte, kHashBlock> pad{};
    std::memcpy(pad.data(), secret.data(), secret.size());
    for (std::byte& byte : pad) byte ^= inner ? std::byte{0x36} : std::byte{0x5c};
    EVP_MD_CTX* context = inner ? state_->inner.get() : state_->outer.get();
    CHECK(EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1 &&
          EVP_DigestUpdate(context, pad.data(), pad.size()) == 1);
  }
}
Identifier::~Identifier() = default;

format::Identity Identifier::identify(View block) {
  format::Identity identity{};
  EVP_MD_CTX* work = state_->work.get();
  CHECK(EVP_MD_CTX_copy_ex(work, state_->inner.get()) == 1 &&
        EVP_DigestUpdate(work, block.data(), block.size()) == 1 &&
        EVP_DigestFinal_ex(work, raw(Bytes(identity)), nullptr) == 1);
  CHECK(EVP_MD_CTX_copy_ex(work, state_->outer.get()) == 1 &&
        EVP_DigestUpdate(work, identity.data(), identity.size()) == 1 &&
        EVP_DigestFinal_ex(work, raw(Bytes(identity)), nullptr) == 1);
  return identity;
}

// --- sealing

Seal::Seal(const Secrets& secrets, const format::SegmentHeader& header)
    : active_(secrets.encrypted) {
  std::memcpy(place_.data(), header.archive.data(), 16);
  std::memcpy(place_.data() + 16, header.disk.data(), 16);
  std::memcpy(place_.data() + 32, &header.segment_id, 8);
  if (!active_) return;
  std::string text = "firn archive: object";
  text.append(static_cast<const char*>(static_cast<const void*>(header.salt.data())), 16);
  key_ = hmac(secrets.content, std::as_bytes(std::span(text)));
}

namespace {
std::array<std::byte, 12> nonce_of(uint32_t number) {
  std::array<std::byte, 12> nonce{};
  const le32 wire(number);
  std::memcpy(nonce.data(), &wire, sizeof wire);
  return nonce;
}
}  // namespace

void Seal::close(uint32_t number, View plain, Bytes to) const {
  CHECK(active_ && to.size() == plain.size() + format::kSealBytes);
  encrypt(key_, nonce_of(number), place_, plain, to.first(plain.size()), to.subspan(plain.size()));
}

Result<void> Seal::open(uint32_t number, View sealed, Bytes to) const {
  CHECK(active_ && sealed.size() == to.size() + format::kSealBytes);
  const View content = sealed.first(to.size());
  if (decrypt(key_, nonce_of(number), place_, content, sealed.subspan(to.size()), to)) return ok;
  return fail(Errc::corrupt,
              "group {} was not encrypted with this archive's key, or for this place", number);
}

// --- files of credentials

namespace {

constexpr uint64_t kKeyFileBytesMin = 32;
constexpr uint64_t kKeyFileBytesMax = 1 * kMiB;

Result<std::string> read_small(Io& io, const std::string& path) {
  const std::unique_ptr<File> file = TRY(io.open(path, {.writable = false}));
  const uint64_t bytes = TRY(io.size(*file));
  if (bytes > kKeyFileBytesMax) {
    return fail(Errc::invalid, "key file {}: {} bytes are too many", path, bytes);
  }
  std::string text(bytes, '\0');
  TRY(io.read(*file, 0, std::as_writable_bytes(std::span(text))));
  return text;
}

}  // namespace

Result<Credentials> read_credentials(Io& io, const std::string& key_file,
                                     const std::string& passphrase_file) {
  Credentials credentials;
  if (!key_file.empty()) {
    credentials.source = format::KeySource::file;
    credentials.bytes = TRY(read_small(io, key_file));
    if (credentials.bytes.size() < kKeyFileBytesMin) {
      return fail(Errc::invalid, "key file {}: at least {} bytes, better random ones", key_file,
                  kKeyFileBytesMin);
    }
  } else if (!passphrase_file.empty()) {
    credentials.source = format::KeySource::passphrase;
    const std::string text = TRY(read_small(io, passphrase_file));
    credentials.bytes = text.substr(0, text.find('\n'));
    if (credentials.bytes.empty()) {
      return fail(Errc::invalid, "passphrase file {}: its first line is empty", passphrase_file);
    }
  }
  return credentials;
}

}  // namespace firn::archive
