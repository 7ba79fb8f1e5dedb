// SPDX-License-Identifier: Apache-2.0
#include "policy/job_retry.h"

#include <gtest/gtest.h>

namespace firn::policy {
namespace {

TEST(JobRetry, R1_R2_pauses_double_up_to_a_minute) {
  using std::chrono::seconds;
  EXPECT_EQ(JobRetry::after(1), seconds(1));
  EXPECT_EQ(JobRetry::after(2), seconds(2));
  EXPECT_EQ(JobRetry::after(6), seconds(32));
  EXPECT_EQ(JobRetry::after(7), seconds(60));
  EXPECT_EQ(JobRetry::after(UINT32_MAX), seconds(60));
}

}  // namespace
}  // namespace firn::policy
