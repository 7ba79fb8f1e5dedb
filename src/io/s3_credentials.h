// SPDX-License-Identifier: Apache-2.0
// Who we are to an S3 server, and where it is: from the environment and the files of the AWS CLI,
// in its order. docs/reference/object-stores.md says it for people.
#pragma once

#include <map>
#include <string>

#include "base/result.h"
#include "io/io.h"
#include "wire/sigv4.h"

namespace firn {

struct S3Identity {
  wire::AwsKey key;
  std::string source;    // "the environment", "profile backup": for sentences.
  std::string region;    // Empty: said nowhere.
  std::string endpoint;  // The same.
  std::string ca;
};

// `profile` as the address of the store says it; empty: AWS_PROFILE, or "default". Errc::invalid
// when there are no credentials, with a sentence that says where they were looked for.
Result<S3Identity> find_s3_identity(Io& io, const std::string& profile);

}  // namespace firn
