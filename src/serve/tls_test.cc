// SPDX-License-Identifier: Apache-2.0
// TLS by certificates and by pre-shared keys, with OpenSSL's own client.
#include "serve/tls.h"

#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <filesystem>
#include <fstream>

#include "serve/nbd_test_client.h"

namespace firn::serve {
namespace {

using nbd::Errno;
using nbd::Form;
using nbd::Option;
using nbd::OptionReply;

constexpr const char* kKey = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

void put_file(const std::string& path, std::string_view text) { std::ofstream(path) << text; }

struct Identity {
  X509* certificate = nullptr;
  EVP_PKEY* key = nullptr;
  ~Identity() {
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
};

void make(Identity& identity, const char* name, bool authority, const Identity* signer) {
  identity.key = EVP_EC_gen("P-256");
  identity.certificate = X509_new();
  X509* made = identity.certificate;
  X509_set_version(made, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(made), 1 + static_cast<long>(name[0]));
  X509_gmtime_adj(X509_getm_notBefore(made), -3600);
  X509_gmtime_adj(X509_getm_notAfter(made), 24 * 3600);
  X509_set_pubkey(made, identity.key);
  const auto* text = static_cast<const unsigned char*>(static_cast<const void*>(name));
  X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_ASC, text, -1, -1, 0);
  X509_set_issuer_name(made, X509_get_subject_name(signer != nullptr ? signer->certificate : made));
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, signer != nullptr ? signer->certificate : made, made, nullptr, nullptr,
                 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, NID_basic_constraints,
                                                  authority ? "critical,CA:TRUE" : "CA:FALSE");
  X509_add_ext(made, extension, -1);
  X509_EXTENSION_free(extension);
  ASSERT_GT(X509_sign(made, signer != nullptr ? signer->key : identity.key, EVP_sha256()), 0);
}

void save(const Identity& identity, const std::string& certificate, const std::string& key) {
  BIO* out = BIO_new_file(certificate.c_str(), "w");
  PEM_write_bio_X509(out, identity.certificate);
  BIO_free(out);
  if (key.empty()) return;
  out = BIO_new_file(key.c_str(), "w");
  PEM_write_bio_PrivateKey(out, identity.key, nullptr, nullptr, 0, nullptr, nullptr);
  BIO_free(out);
}

// A directory as QEMU's, and a stranger whom its authority does not know.
class Credentials {
 public:
  Credentials() {
    char name[] = "/tmp/firn-tls-XXXXXX";
    CHECK(::mkdtemp(name) != nullptr);
    path = name;
    make(authority, "authority", true, nullptr);
    make(server, "server", false, &authority);
    make(client, "client", false, &authority);
    make(stranger, "stranger", false, nullptr);
    save(authority, path + "/ca-cert.pem", "");
    save(server, path + "/server-cert.pem", path + "/server-key.pem");
    put_file(path + "/keys.psk", fmt::format("# a comment\nalice:{}\r\n\nbob:{}\n", kKey,
                                             "00112233445566778899aabbccddeeff"));
  }
  ~Credentials() { std::filesystem::remove_all(path); }
  std::string path;
  Identity authority;
  Identity server;
  Identity client;
  Identity stranger;
};

unsigned alice(SSL*, const char*, char* identity, unsigned, unsigned char* key, unsigned room) {
  std::snprintf(identity, 16, "alice");
  for (size_t i = 0; i < 32 && i < room; ++i) {
    key[i] = static_cast<unsigned char>(std::stoi(std::string(kKey).substr(2 * i, 2), nullptr, 16));
  }
  return 32;
}
unsigned mallory(SSL* session, const char* hint, char* identity, unsigned length,
                 unsigned char* key, unsigned room) {
  const unsigned bytes = alice(session, hint, identity, length, key, room);
  key[0] ^= 1;
  return bytes;
}

struct ClientContext {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  ~ClientContext() { SSL_CTX_free(context); }
  void use(const Identity& identity) {
    SSL_CTX_use_certificate(context, identity.certificate);
    SSL_CTX_use_PrivateKey(context, identity.key);
  }
  void trust(const Identity& authority) {
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context), authority.certificate);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  }
  void only(int version) {
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
  }
};

// STARTTLS and the handshake. With 1.3 a client learns of its refusal from the first read only.
bool encrypt(Io& io, TestClient& client, const ClientContext& how) {
  if (client.last(client.option(Option::starttls)) != OptionReply::ack) return false;
  SSL* session = SSL_new(how.context);
  SSL_set_connect_state(session);
  auto stream = std::make_unique<TlsStream>(client.socket(), session);
  if (!stream->handshake(io)) return false;
  client.use(std::move(stream));
  return client.last(client.option(Option::list)) == OptionReply::ack;
}

struct TlsServer : TestServer {
  TlsServer(TlsMode mode, TlsFiles files) : files_(std::move(files)) { settings.tls_mode = mode; }
  template <class Body>
  void run_with_tls(Body&& body) {
    BlockingIo io;
    Result<std::unique_ptr<TlsContext>> context = TlsContext::load(io, files_);
    ASSERT_TRUE(context) << text_of(context.error());
    settings.tls = context->get();
    run(body);
  }

 private:
  TlsFiles files_;
};

void use_the_disk(TestClient& client) {
  EXPECT_EQ(client.form(Form::structured), OptionReply::ack);
  EXPECT_EQ(client.go("disk"), OptionReply::ack);
  const Raw data = pattern(3 * kMiB + 777, 1);
  EXPECT_EQ(client.write(12345, data).error, Errno::none);
  EXPECT_EQ(client.read(12345, data.size()), data);
  EXPECT_EQ(client.ask(nbd::Command::flush, 0, 0).error, Errno::none);
  client.disconnect();
  EXPECT_TRUE(client.at_end());
}

TEST(NbdTls, certificates_with_both_versions) {
  const Credentials credentials;
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsServer server(TlsMode::required, {.directory = credentials.path});
    server.run_with_tls([&] {
      ClientContext how;
      how.use(credentials.client);
      how.trust(credentials.authority);
      how.only(version);
      auto client = server.client();
      client->greet();
      ASSERT_TRUE(encrypt(server.io(), *client, how));
      EXPECT_EQ(client->last(client->option(Option::starttls)), OptionReply::error_invalid);
      use_the_disk(*client);
    });
    EXPECT_EQ(server.counters.tls_connections_total, 1u);
    EXPECT_TRUE(server.log.lines.empty()) << server.log.lines[0];
  }
}

TEST(NbdTls, pre_shared_keys_with_both_versions) {
  const Credentials credentials;
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    for (const bool certificates_too : {false, true}) {
      TlsServer server(TlsMode::required,
                       {.directory = certificates_too ? credentials.path : std::string(),
                        .psk_file = credentials.path + "/keys.psk"});
      server.run_with_tls([&] {
        ClientContext how;
        SSL_CTX_set_psk_client_callback(how.context, alice);
        how.only(version);
        if (version == TLS1_2_VERSION) SSL_CTX_set_cipher_list(how.context, "PSK");
        auto client = server.client();
        client->greet();
        ASSERT_TRUE(encrypt(server.io(), *client, how))
            << version << (server.log.lines.empty() ? "" : server.log.lines[0]);
        use_the_disk(*client);
        ClientContext wrong;
        SSL_CTX_set_psk_client_callback(wrong.context, mallory);
        wrong.only(version);
        if (version == TLS1_2_VERSION) SSL_CTX_set_cipher_list(wrong.context, "PSK");
        auto other = server.client();
        other->greet();
        EXPECT_FALSE(encrypt(server.io(), *other, wrong));
      });
      EXPECT_TRUE(server.log.says("handshake failed: unix: TLS handshake with unix"));
    }
  }
}

TEST(NbdTls, strangers_and_nobodies_are_turned_away) {
  const Credentials credentials;
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsServer server(TlsMode::required, {.directory = credentials.path});
    server.run_with_tls([&] {
      ClientContext stranger;
      stranger.use(credentials.stranger);
      stranger.only(version);
      ClientContext nobody;
      nobody.only(version);
      for (const ClientContext* how : {&stranger, &nobody}) {
        auto client = server.client();
        client->greet();
        EXPECT_FALSE(encrypt(server.io(), *client, *how));
      }
    });
    EXPECT_EQ(server.counters.handshakes_failed, 2u);
    EXPECT_EQ(server.exports.finds, 0u);
  }
}

TEST(NbdTls, without_verification_anybody_may_come) {
  const Credentials credentials;
  TlsServer server(TlsMode::allowed, {.directory = credentials.path, .verify_clients = false});
  server.run_with_tls([&] {
    ClientContext nobody;
    auto client = server.client();
    client->greet();
    ASSERT_TRUE(encrypt(server.io(), *client, nobody));
    use_the_disk(*client);
    auto plain = server.client();  // TLS is allowed, not required.
    plain->greet();
    use_the_disk(*plain);
  });
}

TEST(NbdTls, S4_nothing_is_told_before_tls_where_it_is_required) {
  const Credentials credentials;
  TlsServer server(TlsMode::required, {.directory = credentials.path});
  server.run_with_tls([&] {
    auto client = server.client();
    client->greet();
    for (const Option option : {Option::list, Option::info, Option::go, Option::structured_reply,
                                Option::list_meta_context, Option::set_meta_context,
                                Option::extended_headers, static_cast<Option>(99)}) {
      const auto answers = client->option(option, nbd::encode(nbd::InfoRequest{"disk"}));
      ASSERT_EQ(answers.size(), 1u);
      EXPECT_EQ(answers[0].type, OptionReply::error_tls_required);
    }
    EXPECT_EQ(client->last(client->option(Option::abort)), OptionReply::ack);
    auto old = server.client();
    old->greet();
    EXPECT_TRUE(old->put_option(Option::export_name, raw_of("disk")));
    EXPECT_TRUE(old->at_end());
  });
  EXPECT_EQ(server.exports.finds, 0u);
}

TEST(NbdTls, H2_bytes_slipped_in_before_tls_end_the_connection) {
  const Credentials credentials;
  TlsServer server(TlsMode::allowed, {.directory = credentials.path});
  server.run_with_tls([&] {
    auto client = server.client();
    client->greet();
    Raw both = raw_of(View(nbd::encode(nbd::OptionHeader{Option::starttls, 0})));
    const Raw slipped = raw_of(View(nbd::encode(nbd::OptionHeader{Option::structured_reply, 0})));
    both.insert(both.end(), slipped.begin(), slipped.end());
    EXPECT_TRUE(client->put(both));
    EXPECT_TRUE(client->at_end());
  });
  EXPECT_TRUE(server.log.says("16 bytes arrived between STARTTLS and its answer"));
}

TEST(NbdTls, state_from_before_is_forgotten) {
  const Credentials credentials;
  TlsServer server(TlsMode::allowed, {.directory = credentials.path, .verify_clients = false});
  server.run_with_tls([&] {
    ClientContext how;
    auto client = server.client();
    client->greet();
    EXPECT_EQ(client->form(Form::structured), OptionReply::ack);
    EXPECT_EQ(client->select("disk", {"base:allocation"}), OptionReply::ack);
    ASSERT_TRUE(encrypt(server.io(), *client, how));
    EXPECT_EQ(client->go("disk"), OptionReply::ack);
    EXPECT_EQ(client->export_flags & nbd::kSendDf, 0);
  });
}

TEST(NbdTls, junk_instead_of_a_handshake) {
  const Credentials credentials;
  TlsServer server(TlsMode::allowed, {.directory = credentials.path});
  server.run_with_tls([&] {
    for (const size_t bytes : {0u, 1u, 5u, 300u, 70000u}) {
      auto client = server.client();
      client->greet();
      EXPECT_EQ(client->last(client->option(Option::starttls)), OptionReply::ack);
      client->put(pattern(bytes, bytes));
      client->leave();
    }
    EXPECT_TRUE(server.wait_until([&] { return server.server->counters().connections == 0; }));
  });
  EXPECT_EQ(server.counters.handshakes_failed, 5u);
}

TEST(NbdTls, a_cut_is_no_farewell) {
  const Credentials credentials;
  TlsServer server(TlsMode::allowed, {.directory = credentials.path, .verify_clients = false});
  server.run_with_tls([&] {
    ClientContext how;
    auto client = server.client();
    client->greet();
    ASSERT_TRUE(encrypt(server.io(), *client, how));
    EXPECT_EQ(client->go("disk"), OptionReply::ack);
    client->put_request({0, nbd::Command::write, 1, 0, 65536}, pattern(100, 1));
    client->leave();
    EXPECT_TRUE(server.wait_until([&] { return server.server->counters().connections == 0; }));
  });
  EXPECT_TRUE(server.log.says("it left in the middle of a write"));
}

TEST(NbdTls, drain_says_farewell) {
  const Credentials credentials;
  TlsServer server(TlsMode::allowed, {.directory = credentials.path, .verify_clients = false});
  server.run_with_tls([&] {
    ClientContext how;
    auto client = server.client();
    client->greet();
    ASSERT_TRUE(encrypt(server.io(), *client, how));
    EXPECT_EQ(client->go("disk"), OptionReply::ack);
    EXPECT_EQ(client->read(0, 512).size(), 512u);
    server.server->drain(std::chrono::seconds(10));
    EXPECT_TRUE(client->at_end());
  });
  EXPECT_TRUE(server.log.lines.empty());
}

TEST(NbdTls, files_that_are_wrong_are_named) {
  const Credentials credentials;
  BlockingIo io;
  const auto why = [&](const TlsFiles& files) {
    const auto context = TlsContext::load(io, files);
    return context ? std::string("nothing") : std::string(text_of(context.error()));
  };
  const std::string& path = credentials.path;
  EXPECT_NE(why({.directory = path, .verify_clients = false, .psk_file = path + "/keys.psk"})
                .find("protect nothing"),
            std::string::npos);
  EXPECT_NE(why({}).find("needs certificates"), std::string::npos);
  EXPECT_NE(why({.directory = path + "/none"}).find("/none/server-cert.pem"), std::string::npos);
  EXPECT_NE(why({.psk_file = path + "/none"}).find("/none"), std::string::npos);
  put_file(path + "/bad.psk", "alice:123\n");
  EXPECT_NE(why({.psk_file = path + "/bad.psk"}).find("bad.psk:1:"), std::string::npos);
  put_file(path + "/bad.psk", "# nobody\n");
  EXPECT_NE(why({.psk_file = path + "/bad.psk"}).find("holds no key"), std::string::npos);
  put_file(path + "/bad.psk", "");
  EXPECT_NE(why({.psk_file = path + "/bad.psk"}).find("0 bytes"), std::string::npos);
  save(credentials.stranger, path + "/other-cert.pem", path + "/server-key.pem");
  EXPECT_NE(why({.directory = path}).find("is not the key of"), std::string::npos);
  put_file(path + "/server-cert.pem", "not a certificate");
  EXPECT_NE(why({.directory = path}).find("no usable certificate"), std::string::npos);
  save(credentials.server, path + "/server-cert.pem", path + "/server-key.pem");
  put_file(path + "/ca-cert.pem", "not a certificate");
  EXPECT_NE(why({.directory = path}).find("ca-cert.pem holds no certificate"), std::string::npos);
  EXPECT_EQ(why({.directory = path, .verify_clients = false}), "nothing");
}

}  // namespace
}  // namespace firn::serve
