// SPDX-License-Identifier: Apache-2.0
// What S3 servers answer, addresses of stores, and files of credentials.
#include "wire/s3.h"

#include <gtest/gtest.h>

#include "wire/aws_profile.h"
#include "wire/s3_url.h"
#include "wire/xml.h"

namespace firn::wire {
namespace {

constexpr std::string_view kHead = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

std::string list_of(std::string_view contents, bool truncated = false) {
  return std::string(kHead) +
         "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">" +
         "<Name>b</Name><IsTruncated>" + (truncated ? "true" : "false") + "</IsTruncated>" +
         std::string(contents) + "</ListBucketResult>";
}
std::string entry(std::string_view key, std::string_view size = "7") {
  return "<Contents><Key>" + std::string(key) +
         "</Key><LastModified>2013-05-24T00:00:00.500Z</LastModified><ETag>&quot;x&quot;</ETag>"
         "<Size>" +
         std::string(size) + "</Size><StorageClass>GLACIER_IR</StorageClass></Contents>";
}

TEST(S3List, is_decoded) {
  const auto list = decode_s3_list(list_of(entry("a%2Fb+c") + entry("a%2Fd"), true));
  ASSERT_TRUE(list) << text_of(list.error());
  ASSERT_EQ(list->entries.size(), 2u);
  EXPECT_TRUE(list->truncated);
  EXPECT_EQ(list->entries[0].key, "a/b c");
  EXPECT_EQ(list->entries[0].bytes, 7u);
  EXPECT_EQ(list->entries[0].modified_ns, 1'369'353'600'500'000'000);
  EXPECT_EQ(list->entries[0].storage_class, "GLACIER_IR");
  EXPECT_TRUE(decode_s3_list(list_of("")));
}

TEST(S3List, is_refused_when_it_cannot_be_right) {
  EXPECT_FALSE(decode_s3_list(list_of(entry("b") + entry("a"))));
  EXPECT_FALSE(decode_s3_list(list_of(entry("a") + entry("a"))));
  EXPECT_FALSE(decode_s3_list(list_of("", true)));
  EXPECT_FALSE(decode_s3_list(list_of(entry("a", "-7"))));
  EXPECT_FALSE(decode_s3_list(list_of(entry("a", "99999999999999999999"))));
  EXPECT_FALSE(decode_s3_list(list_of(entry(""))));
  EXPECT_FALSE(decode_s3_list(list_of(entry("%4"))));
  EXPECT_FALSE(decode_s3_list("<html><body>Welcome to the proxy</body></html>"));
  EXPECT_FALSE(decode_s3_list(""));
}

TEST(S3Error, is_decoded_and_printable) {
  const S3Error error = decode_s3_error(std::string(kHead) +
                                        "<Error><Code>NoSuchKey</Code><Message>not\n here &#x41;"
                                        "</Message><Region>eu-west-1</Region></Error>");
  EXPECT_EQ(error.code, "NoSuchKey");
  EXPECT_EQ(error.message, "not? here A");
  EXPECT_EQ(error.region, "eu-west-1");
  EXPECT_EQ(decode_s3_error("<html/>").code, "");
}

TEST(Xml, takes_what_servers_write) {
  const auto root = parse_xml(
      "<?xml version='1.0'?><!-- a --><p:a x = 'y' z=\"&lt;\"><b/><![CDATA[<raw>]]><c>1 &amp; 2"
      "</c><!-- b --></p:a>\n");
  ASSERT_TRUE(root) << text_of(root.error());
  EXPECT_EQ(root->name, "a");
  EXPECT_EQ(root->text, "<raw>");
  EXPECT_EQ(root->text_of("c"), "1 & 2");
  EXPECT_NE(root->child("b"), nullptr);
  EXPECT_EQ(root->child("d"), nullptr);
}

TEST(Xml, refuses_the_rest) {
  for (const char* bad : {"", "a", "<a>", "<a></b>", "<a", "<a/><b/>", "<a>&b;</a>", "<a>&#0;</a>",
                          "<a>&#xd800;</a>", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
                          "<a b></a>", "<a b=c/>", "<></>", "<a>&lt</a>", "<:/>"}) {
    EXPECT_FALSE(parse_xml(bad)) << bad;
  }
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "<a>";
  EXPECT_FALSE(parse_xml(deep));
  EXPECT_FALSE(parse_xml("<a>" + std::string(10'000, 'x') + "</a>"));
  std::string many = "<a>";
  for (int i = 0; i < 60'000; ++i) many += "<b/>";
  EXPECT_FALSE(parse_xml(many + "</a>"));
}

TEST(S3Lifecycle, tells_which_rules_eat) {
  const auto rules = decode_s3_lifecycle(
      "<LifecycleConfiguration><Rule><ID>old</ID><Filter><Prefix>backups/</Prefix></Filter>"
      "<Status>Enabled</Status><Expiration><Days>30</Days></Expiration></Rule>"
      "<Rule><ID>cold</ID><Prefix/><Status>Disabled</Status><Transition><Days>1</Days>"
      "<StorageClass>GLACIER</StorageClass></Transition></Rule>"
      "<Rule><Filter><And><Prefix>x</Prefix><Tag><Key>k</Key></Tag></And></Filter>"
      "<Status>Enabled</Status><Expiration><ExpiredObjectDeleteMarker>true"
      "</ExpiredObjectDeleteMarker></Expiration></Rule></LifecycleConfiguration>");
  ASSERT_TRUE(rules) << text_of(rules.error());
  ASSERT_EQ(rules->size(), 3u);
  EXPECT_TRUE((*rules)[0].enabled && (*rules)[0].expires);
  EXPECT_EQ((*rules)[0].prefix, "backups/");
  EXPECT_EQ((*rules)[1].transition, "GLACIER");
  EXPECT_FALSE((*rules)[1].enabled);
  EXPECT_TRUE((*rules)[2].only_tagged && !(*rules)[2].expires);
}

TEST(S3Lock, is_decoded) {
  const auto lock = decode_s3_object_lock(
      "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>"
      "<DefaultRetention><Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule>"
      "</ObjectLockConfiguration>");
  ASSERT_TRUE(lock);
  EXPECT_TRUE(lock->enabled);
  EXPECT_EQ(lock->mode, "COMPLIANCE");
  EXPECT_EQ(lock->period, "30 days");
}

TEST(S3Headers, are_decoded) {
  EXPECT_EQ(*parse_http_date("Fri, 24 May 2013 00:00:00 GMT"), 1'369'353'600'000'000'000);
  EXPECT_FALSE(parse_http_date("Fri, 24 Mai 2013 00:00:00 GMT"));
  EXPECT_FALSE(parse_http_date("Fri, 32 May 2013 00:00:00 GMT"));
  EXPECT_FALSE(parse_iso_date("2013-05-24"));
  const auto range = parse_content_range("bytes 0-9/100");
  ASSERT_TRUE(range);
  EXPECT_EQ(range->total, 100u);
  for (const char* bad : {"bytes 9-0/100", "bytes 0-100/100", "bytes */100", "0-9/100", ""}) {
    EXPECT_FALSE(parse_content_range(bad)) << bad;
  }
  EXPECT_EQ(parse_restore_ongoing("ongoing-request=\"true\""), true);
  EXPECT_EQ(parse_restore_ongoing("x"), std::nullopt);
}

TEST(StoreUrl, says_where_a_store_is) {
  auto url = parse_store_url(
      "s3://back.up/vm/web/?endpoint=http://127.0.0.1:7480&region=eu-1&profile=p&style=host"
      "&part=8M&patience=5");
  ASSERT_TRUE(url) << text_of(url.error());
  EXPECT_EQ(url->bucket, "back.up");
  EXPECT_EQ(url->prefix, "vm/web");
  EXPECT_EQ(url->endpoint, "http://127.0.0.1:7480");
  EXPECT_EQ(url->part_bytes, 8u << 20);
  EXPECT_EQ(url->patience_s, 5u);
  EXPECT_EQ(name_of(*url), "s3://back.up/vm/web");
  EXPECT_EQ(parse_store_url("file:///srv/a%20b")->path, "/srv/a b");
  EXPECT_EQ(parse_store_url("some/dir")->path, "some/dir");
  EXPECT_EQ(name_of(*parse_store_url("/srv/x")), "file:///srv/x");
}

TEST(StoreUrl, refuses_what_it_does_not_know) {
  for (const char* bad :
       {"", "http://x/y", "s3://", "s3://ab", "s3://a..b", "s3://bucket//x", "s3://bucket/../x",
        "s3://bucket?color=red", "s3://bucket?part=1K", "s3://bucket?patience=0",
        "s3://bucket?endpoint=127.0.0.1", "s3://bucket?endpoint=http://h/p", "file://srv",
        "s3://bucket?region=a%0d%0ab", "s3://bucket/a b", "s3://bucket?style"}) {
    EXPECT_FALSE(parse_store_url(bad)) << bad;
  }
  const auto secret = parse_store_url("s3://KEY:hunter2@bucket/x");
  ASSERT_FALSE(secret);
  EXPECT_EQ(text_of(secret.error()).find("hunter2"), std::string_view::npos);
}

TEST(AwsFile, is_read_as_the_cli_reads_it) {
  const auto file = parse_aws_file(
      "# mine\n[default]\naws_access_key_id = AK\nAWS_SECRET_ACCESS_KEY=a=b==\r\n\n"
      "[profile  backup] \nregion=eu-1\ns3 =\n  max_concurrent_requests = 20\nca_bundle = /x\n"
      "; no\n[other]\n");
  ASSERT_TRUE(file) << text_of(file.error());
  ASSERT_NE(find_profile(*file, "default"), nullptr);
  EXPECT_EQ(find_profile(*file, "default")->at("aws_secret_access_key"), "a=b==");
  EXPECT_EQ(find_profile(*file, "backup")->at("region"), "eu-1");
  EXPECT_EQ(find_profile(*file, "backup")->at("ca_bundle"), "/x");
  EXPECT_FALSE(find_profile(*file, "backup")->contains("max_concurrent_requests"));
  EXPECT_NE(find_profile(*file, "other"), nullptr);
  EXPECT_EQ(find_profile(*file, "none"), nullptr);
}

TEST(AwsFile, names_the_line_and_not_the_secret) {
  const auto bad = parse_aws_file("[default]\nhunter2\n");
  ASSERT_FALSE(bad);
  EXPECT_NE(text_of(bad.error()).find("line 2"), std::string_view::npos);
  EXPECT_EQ(text_of(bad.error()).find("hunter2"), std::string_view::npos);
  EXPECT_FALSE(parse_aws_file("a = b\n"));
  EXPECT_FALSE(parse_aws_file("[default\n"));
  EXPECT_FALSE(parse_aws_file(std::string("[d]\nk = a\0b\n", 12)));
}

}  // namespace
}  // namespace firn::wire
