// SPDX-License-Identifier: Apache-2.0
// Notes on the design
//
// OpenSSL sees two memory buffers: what came from the socket and was not decrypted, and what it
// has encrypted and nobody sent. Every call into it ends at once, so between two waits the
// session object is used by one fiber only. Records leave under a lock, in the order in which
// they were made, whoever made them: the sender, or the reader when the peer asks for new keys.
// Handshakes run on helper threads: public-key arithmetic must not delay other clients of the
// shard.
#include "serve/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>

#include "base/check.h"
#include "io/mutex.h"

namespace firn::serve {
namespace {

constexpr size_t kRecordBytes = 16 * 1024;
constexpr size_t kIncomingBytes = 64 * 1024;
constexpr size_t kOutgoingBytes = 128 * 1024;
constexpr uint64_t kFileBytesMax = 1 << 20;
constexpr size_t kKeyBytesMin = 16;
constexpr size_t kKeyBytesMax = 64;

// By name: forward secrecy and authenticated encryption first. 1.3 has no other kind.
constexpr const char* kCertificateCiphers =
    "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL:!aDSS:!kPSK";
constexpr const char* kKeyCiphers =
    "kECDHEPSK+CHACHA20:kDHEPSK+AESGCM:kDHEPSK+CHACHA20:kECDHEPSK+AES:kPSK+AESGCM";

constexpr const char* kKeySuites =
    "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384";

// Why the last OpenSSL call of this thread failed; empties its queue.
std::string last_reason() {
  std::array<char, 160> text{};
  const unsigned long code = ERR_get_error();
  if (code == 0) return "no reason given";
  ERR_error_string_n(code, text.data(), text.size());
  ERR_clear_error();
  return text.data();
}

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using BioPointer = std::unique_ptr<BIO, FreeBio>;
struct FreeCertificate {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
using CertificatePointer = std::unique_ptr<X509, FreeCertificate>;

Result<std::vector<std::byte>> read_file(Io& io, const std::string& path) {
  const std::unique_ptr<File> file = TRY(io.open(path, {.writable = false}));
  const uint64_t bytes = TRY(io.size(*file));
  if (bytes == 0 || bytes > kFileBytesMax) {
    return fail(Errc::invalid, "{} has {} bytes; 1 to {} are expected", path, bytes, kFileBytesMax);
  }
  std::vector<std::byte> content(static_cast<size_t>(bytes));
  TRY(io.read(*file, 0, content));
  return content;
}

BioPointer bio_over(const std::vector<std::byte>& content) {
  return BioPointer(BIO_new_mem_buf(content.data(), static_cast<int>(content.size())));
}

// An encrypted key file must fail, not ask at the terminal.
int no_password(char*, int, int, void*) { return 0; }

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool decode_hex(std::string_view text, std::vector<std::byte>& into) {
  if (text.size() % 2 != 0) return false;
  for (size_t i = 0; i < text.size(); i += 2) {
    const int high = hex_digit(text[i]);
    const int low = hex_digit(text[i + 1]);
    if (high < 0 || low < 0) return false;
    into.push_back(static_cast<std::byte>(high * 16 + low));
  }
  return into.size() >= kKeyBytesMin && into.size() <= kKeyBytesMax;
}

unsigned find_key(SSL* session, const char* user, unsigned char* key, unsigned room) {
  const auto* context =
      static_cast<const TlsContext*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(session)));
  const View found = context->key_of(user);
  if (found.empty() || found.size() > room) return 0;
  std::memcpy(key, found.data(), found.size());
  return static_cast<unsigned>(found.size());
}

}  // namespace

// --- the context

Result<std::unique_ptr<TlsContext>> TlsContext::load(Io& io, const TlsFiles& files) {
  if (files.directory.empty() && files.psk_file.empty()) {
    return fail(Errc::invalid, "TLS needs certificates or a file of pre-shared keys");
  }
  if (!files.directory.empty() && !files.psk_file.empty() && !files.verify_clients) {
    return fail(Errc::invalid,
                "pre-shared keys in {} would protect nothing: certificates without "
                "verification of clients let in anybody",
                files.psk_file);
  }
  std::unique_ptr<TlsContext> made(new TlsContext);
  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  CHECK(context != nullptr, "no memory for a TLS context");
  made->context_ = context;
  SSL_CTX_set_app_data(context, made.get());
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                   SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, 0);
  // An external key is a session to resume for OpenSSL, and those need a name where clients are
  // verified.
  static constexpr unsigned char kName[] = {'f', 'i', 'r', 'n'};
  SSL_CTX_set_session_id_context(context, kName, sizeof(kName));
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_dh_auto(context, 1);
  std::string ciphers;
  if (!files.directory.empty()) {
    TRY(made->load_certificates(io, files));
    ciphers = kCertificateCiphers;
  }
  if (!files.psk_file.empty()) {
    TRY(made->load_keys(io, files.psk_file));
    SSL_CTX_set_psk_server_callback(context, find_key);
    // With 1.3 such a key belongs to SHA-256, and a suite of another hash would pass it over.
    SSL_CTX_set_ciphersuites(context, kKeySuites);
    ciphers = ciphers.empty() ? kKeyCiphers : std::string(kKeyCiphers) + ":" + kCertificateCiphers;
    if (!files.directory.empty()) ciphers.resize(ciphers.size() - std::strlen(":!kPSK"));
  }
  if (SSL_CTX_set_cipher_list(context, ciphers.c_str()) != 1) {
    return fail(Errc::unsupported, "OpenSSL offers none of our ciphers: {}", last_reason());
  }
  return made;
}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

Result<void> TlsContext::load_certificates(Io& io, const TlsFiles& files) {
  ERR_clear_error();
  const std::string certificate_path = files.directory + "/server-cert.pem";
  const std::vector<std::byte> certificates = TRY(read_file(io, certificate_path));
  const BioPointer chain = bio_over(certificates);
  const CertificatePointer own(PEM_read_bio_X509(chain.get(), nullptr, no_password, nullptr));
  if (own == nullptr || SSL_CTX_use_certificate(context_, own.get()) != 1) {
    return fail(Errc::invalid, "{} holds no usable certificate: {}", certificate_path,
                last_reason());
  }
  while (X509* more = PEM_read_bio_X509(chain.get(), nullptr, no_password, nullptr)) {
    SSL_CTX_add0_chain_cert(context_, more);
  }
  const std::string key_path = files.directory + "/server-key.pem";
  const std::vector<std::byte> key_text = TRY(read_file(io, key_path));
  EVP_PKEY* key = PEM_read_bio_PrivateKey(bio_over(key_text).get(), nullptr, no_password, nullptr);
  const bool fits = key != nullptr && SSL_CTX_use_PrivateKey(context_, key) == 1 &&
                    SSL_CTX_check_private_key(context_) == 1;
  EVP_PKEY_free(key);
  if (!fits) {
    return fail(Errc::invalid, "{} is not the key of {}: {}", key_path, certificate_path,
                last_reason());
  }
  ERR_clear_error();
  if (!files.verify_clients) return ok;

  const std::string authority_path = files.directory + "/ca-cert.pem";
  const std::vector<std::byte> authorities = TRY(read_file(io, authority_path));
  const BioPointer authority = bio_over(authorities);
  size_t count = 0;
  for (;; ++count) {
    const CertificatePointer each(
        PEM_read_bio_X509(authority.get(), nullptr, no_password, nullptr));
    if (each == nullptr) break;
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context_), each.get());
    SSL_CTX_add_client_CA(context_, each.get());
  }
  ERR_clear_error();
  if (count == 0) return fail(Errc::invalid, "{} holds no certificate", authority_path);
  SSL_CTX_set_verify(context_, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return ok;
}

Result<void> TlsContext::load_keys(Io& io, const std::string& path) {
  const std::vector<std::byte> content = TRY(read_file(io, path));
  std::string_view rest(static_cast<const char*>(static_cast<const void*>(content.data())),
                        content.size());
  for (size_t number = 1; !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    const size_t colon = line.find(':');
    User user;
    if (colon == std::string_view::npos || colon == 0 ||
        !decode_hex(line.substr(colon + 1), user.key)) {
      return fail(Errc::invalid, "{}:{}: is not USER:KEY with a key of {} to {} hexadecimal bytes",
                  path, number, kKeyBytesMin, kKeyBytesMax);
    }
    user.name = line.substr(0, colon);
    users_.push_back(std::move(user));
  }
  if (users_.empty()) return fail(Errc::invalid, "{} holds no key", path);
  return ok;
}

View TlsContext::key_of(std::string_view user) const {
  for (const User& each : users_) {
    if (each.name == user) return each.key;
  }
  return {};
}

Result<std::unique_ptr<Stream>> TlsContext::accept(Io& io, Socket& socket) const {
  SSL* session = SSL_new(context_);
  CHECK(session != nullptr, "no memory for a TLS session");
  SSL_set_accept_state(session);
  auto stream = std::make_unique<TlsStream>(socket, session);
  TRY(stream->handshake(io));
  return std::unique_ptr<Stream>(std::move(stream));
}

// --- the stream

struct TlsStream::Halves {
  BIO* in = BIO_new(BIO_s_mem());  // The session's, once it is set.
  BIO* out = BIO_new(BIO_s_mem());
  Mutex sending;
  bool established = false;
  bool broken = false;
  std::vector<std::byte> incoming = std::vector<std::byte>(kIncomingBytes);
  std::vector<std::byte> outgoing = std::vector<std::byte>(kOutgoingBytes);
  std::vector<std::byte> record = std::vector<std::byte>(kRecordBytes);
};

TlsStream::TlsStream(Socket& socket, ssl_st* session)
    : Stream(socket), session_(session), halves_(std::make_unique<Halves>()) {
  CHECK(halves_->in != nullptr && halves_->out != nullptr, "no memory for a TLS session");
  BIO_set_mem_eof_return(halves_->in, -1);  // Empty means: later, not the end.
  SSL_set_bio(session_, halves_->in, halves_->out);
}

TlsStream::~TlsStream() { SSL_free(session_); }

Error TlsStream::broken(const char* verb) {
  halves_->broken = true;
  return fail(Errc::io, "TLS {} with {}: {}", verb, peer(), last_reason());
}

// False when the peer has left.
Result<bool> TlsStream::fill(Io& io) {
  const size_t got = TRY(io.receive(socket_, halves_->incoming));
  if (got == 0) return false;
  const int taken = BIO_write(halves_->in, halves_->incoming.data(), static_cast<int>(got));
  CHECK(taken == static_cast<int>(got));
  return true;
}

Result<void> TlsStream::flush(Io& io) {
  const auto hold = halves_->sending.lock(io);
  while (BIO_ctrl_pending(halves_->out) > 0) {
    const int count = BIO_read(halves_->out, halves_->outgoing.data(),
                               static_cast<int>(halves_->outgoing.size()));
    CHECK(count > 0);
    const ::iovec slice = {halves_->outgoing.data(), static_cast<size_t>(count)};
    TRY(io.send(socket_, Iovec(&slice, 1)));
  }
  return ok;
}

Result<void> TlsStream::handshake(Io& io) {
  for (;;) {
    int reason = SSL_ERROR_NONE;
    std::string why;  // OpenSSL keeps reasons by thread: taken where they are born.
    io.offload([&] {
      ERR_clear_error();
      const int done = SSL_do_handshake(session_);
      reason = done == 1 ? SSL_ERROR_NONE : SSL_get_error(session_, done);
      if (reason != SSL_ERROR_NONE && reason != SSL_ERROR_WANT_READ) why = last_reason();
    });
    const Result<void> sent = flush(io);  // Alerts too.
    if (reason == SSL_ERROR_NONE) {
      halves_->established = static_cast<bool>(sent);
      return sent;
    }
    if (reason != SSL_ERROR_WANT_READ) {
      halves_->broken = true;
      return fail(Errc::invalid, "TLS handshake with {}: {}", peer(), why);
    }
    TRY(Result<void>(sent));
    if (!TRY(fill(io))) return fail(Errc::io, "TLS handshake with {}: it left", peer());
  }
}

Result<size_t> TlsStream::receive(Io& io, Bytes into) {
  size_t done = 0;
  for (;;) {
    ERR_clear_error();
    const size_t unsent = BIO_ctrl_pending(halves_->out);
    const Bytes rest = into.subspan(done);
    const int got =
        SSL_read(session_, rest.data(), static_cast<int>(std::min<size_t>(rest.size(), INT_MAX)));
    const int reason = got > 0 ? SSL_ERROR_NONE : SSL_get_error(session_, got);
    const bool answered = BIO_ctrl_pending(halves_->out) > unsent;  // New keys, say.
    if (got > 0) done += static_cast<size_t>(got);
    if (reason != SSL_ERROR_NONE && reason != SSL_ERROR_WANT_READ &&
        reason != SSL_ERROR_ZERO_RETURN) {
      return broken("receive");
    }
    if (answered) TRY(flush(io));
    if (reason == SSL_ERROR_NONE && done < into.size()) continue;
    if (done > 0 || reason == SSL_ERROR_ZERO_RETURN) return done;
    if (!TRY(fill(io))) {
      halves_->broken = true;
      return fail(Errc::io, "{} left without a TLS farewell", peer());
    }
  }
}

// Small slices are put together, so that a header and its payload share a record.
Result<void> TlsStream::send(Io& io, Iovec from) {
  std::vector<std::byte>& record = halves_->record;
  size_t gathered = 0;
  const auto encrypt = [&]() -> Result<void> {
    if (gathered == 0) return ok;
    ERR_clear_error();
    if (SSL_write(session_, record.data(), static_cast<int>(gathered)) <= 0) return broken("send");
    gathered = 0;
    if (BIO_ctrl_pending(halves_->out) >= kOutgoingBytes) return flush(io);
    return ok;
  };
  for (const ::iovec& slice : from) {
    View rest(static_cast<const std::byte*>(slice.iov_base), slice.iov_len);
    while (!rest.empty()) {
      const size_t step = std::min(rest.size(), record.size() - gathered);
      std::memcpy(record.data() + gathered, rest.data(), step);
      gathered += step;
      rest = rest.subspan(step);
      if (gathered == record.size()) TRY(encrypt());
    }
  }
  TRY(encrypt());
  return flush(io);
}

void TlsStream::close(Io& io) {
  if (halves_->established && !halves_->broken) {
    ERR_clear_error();
    SSL_shutdown(session_);
    ERR_clear_error();
    // A peer that left already cannot be told; there is nobody else to tell.
    (void)flush(io).has_value();
  }
  io.shutdown(socket_);
}

}  // namespace firn::serve
