// SPDX-License-Identifier: Apache-2.0
#include "io/s3_credentials.h"

#include <cstdlib>

#include "wire/aws_profile.h"

namespace firn {
namespace {

using Settings = std::map<std::string, std::string>;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

std::string first_of(std::initializer_list<std::string> texts) {
  for (const std::string& text : texts) {
    if (!text.empty()) return text;
  }
  return {};
}

std::string file_path(const char* variable, const char* name) {
  const std::string said = environment(variable);
  if (!said.empty()) return said;
  const std::string home = environment("HOME");
  return home.empty() ? std::string() : home + "/.aws/" + name;
}

// Nothing when there is no such file.
Result<wire::AwsFile> read_file(Io& io, const std::string& path) {
  if (path.empty()) return wire::AwsFile();
  Result<std::unique_ptr<File>> file = io.open(path, {.writable = false});
  if (!file && file.error().code == Errc::not_found) return wire::AwsFile();
  if (!file) return file.error();
  const uint64_t bytes = TRY(io.size(**file));
  if (bytes > wire::kAwsFileBytesMax) return fail(Errc::invalid, "{} is longer than 1 MiB", path);
  std::string text(bytes, '\0');
  TRY(io.read(**file, 0, std::as_writable_bytes(std::span(text))));
  Result<wire::AwsFile> parsed = wire::parse_aws_file(text);
  if (!parsed) return fail(Errc::invalid, "{}: {}", path, text_of(parsed.error()));
  return parsed;
}

std::string value_of(const Settings* settings, const char* name) {
  if (settings == nullptr) return {};
  const auto found = settings->find(name);
  return found == settings->end() ? std::string() : found->second;
}

// What a profile may say instead of a key, and we cannot do.
const char* foreign_way(const Settings* settings) {
  for (const char* name : {"role_arn", "sso_start_url", "sso_session", "credential_process",
                           "web_identity_token_file"}) {
    if (!value_of(settings, name).empty()) return name;
  }
  return nullptr;
}

bool is_token(const std::string& text) {
  for (const char c : text) {
    if (c <= ' ' || c >= 0x7f) return false;
  }
  return text.size() <= 16 * 1024;
}

wire::AwsKey key_of_environment() {
  return {environment("AWS_ACCESS_KEY_ID"), environment("AWS_SECRET_ACCESS_KEY"),
          environment("AWS_SESSION_TOKEN")};
}

wire::AwsKey key_of_profile(const Settings* settings) {
  return {value_of(settings, "aws_access_key_id"), value_of(settings, "aws_secret_access_key"),
          value_of(settings, "aws_session_token")};
}

bool is_key(const wire::AwsKey& key) { return !key.access_key.empty() && !key.secret_key.empty(); }

Result<void> check_key(const S3Identity& identity) {
  if (is_token(identity.key.access_key) && is_token(identity.key.secret_key) &&
      is_token(identity.key.session_token) &&
      identity.key.access_key.find('/') == std::string::npos) {
    return ok;
  }
  return fail(Errc::invalid,
              "the credentials in {} have spaces or control characters, or are too long",
              identity.source);
}

}  // namespace

Result<S3Identity> find_s3_identity(Io& io, const std::string& profile_said) {
  const std::string profile = first_of({profile_said, environment("AWS_PROFILE"), "default"});
  const std::string credentials_path = file_path("AWS_SHARED_CREDENTIALS_FILE", "credentials");
  const std::string config_path = file_path("AWS_CONFIG_FILE", "config");
  const wire::AwsFile credentials_file = TRY(read_file(io, credentials_path));
  const wire::AwsFile config_file = TRY(read_file(io, config_path));
  const Settings* credentials = wire::find_profile(credentials_file, profile);
  const Settings* config = wire::find_profile(config_file, profile);

  S3Identity identity;
  identity.region = first_of({environment("AWS_REGION"), environment("AWS_DEFAULT_REGION"),
                              value_of(config, "region"), value_of(credentials, "region")});
  identity.endpoint =
      first_of({environment("AWS_ENDPOINT_URL_S3"), environment("AWS_ENDPOINT_URL"),
                value_of(config, "endpoint_url"), value_of(credentials, "endpoint_url")});
  identity.ca = first_of({environment("AWS_CA_BUNDLE"), value_of(config, "ca_bundle")});
  // A profile that was asked for by name goes before the environment.
  if (profile_said.empty() && is_key(key_of_environment())) {
    identity.key = key_of_environment();
    identity.source = "the environment";
  } else {
    identity.key = key_of_profile(credentials);
    if (!is_key(identity.key)) identity.key = key_of_profile(config);
    identity.source = "profile " + profile;
  }
  if (is_key(identity.key)) {
    TRY(check_key(identity));
    return identity;
  }
  for (const Settings* settings : {credentials, config}) {
    if (const char* way = foreign_way(settings); way != nullptr) {
      return fail(
          Errc::invalid,
          "profile {} gets its credentials by {}, which firn cannot: put a key or a session "
          "into the environment (aws configure export-credentials --format env)",
          profile, way);
    }
  }
  return fail(Errc::invalid,
              "no credentials for S3: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, nor "
              "profile {} in {} or {}",
              profile, credentials_path.empty() ? "~/.aws/credentials" : credentials_path,
              config_path.empty() ? "~/.aws/config" : config_path);
}

}  // namespace firn
