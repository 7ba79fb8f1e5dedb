// SPDX-License-Identifier: Apache-2.0
// Golden files of what lies in buckets: the tree of the archive's metadata, and the archive.
#include "base/check.h"
#include "base/units.h"
#include "format/archive_golden_test.h"
#include "format/lsm_golden_test.h"
#include "golden_files.h"

namespace firn::golden {
namespace {

// --- the tree in the bucket

void make_lsm_table() {
  const Blob table = lsm_sample_table();
  keep("lsm_table-v1", table, "lsm_table", 3);
  const auto bad = [&](const std::string& name, const std::function<void(LsmFooter&)>& change) {
    Blob changed = table;
    const size_t at = changed.size() - sizeof(LsmFooter);
    auto footer = load<LsmFooter>(View(changed).subspan(at));
    change(footer);
    footer.crc = crc32c(view_of(footer).subspan(12));
    std::ranges::copy(view_of(footer), changed.begin() + static_cast<ptrdiff_t>(at));
    keep("lsm_table-v1-bad-" + name, changed, "lsm_table", 3);
  };
  bad("version", [](LsmFooter& f) { f.version = 2; });
  bad("tree", [](LsmFooter& f) { f.tree[0] = std::byte{0x11}; });
  bad("number", [](LsmFooter& f) { f.number = 4; });
  bad("blocks", [](LsmFooter& f) { f.blocks = 3; });
  bad("reserved", [](LsmFooter& f) { f.reserved[0] = std::byte{1}; });
  Blob rotten = table;
  rotten[3] ^= std::byte{1};
  keep("lsm_table-v1-bad-rot", rotten, "lsm_table", 3);
  keep("lsm_table-v1-block", blob_of(View(table).first(120)), "lsm_table", 1);
}

void make_lsm_catalog() {
  keep("lsm_catalog-v1", encode(lsm_sample_catalog()), "lsm_catalog", 0);
  for (const LsmBadCatalog& bad : lsm_bad_catalogs()) {
    LsmCatalog catalog = lsm_sample_catalog();
    bad.change(catalog);
    keep(std::string("lsm_catalog-v1-bad-") + bad.name, encode(catalog), "lsm_catalog", 0);
  }
  keep("lsm_catalog-v1-newest", blob_of(encode(lsm_sample_pointer(kLsmNewestMagic))), "lsm_catalog",
       2);
  keep("lsm_catalog-v1-epoch", blob_of(encode(lsm_sample_pointer(kLsmEpochMagic))), "lsm_catalog",
       3);
}

void make_lsm_log() {
  const Blob log = lsm_sample_log();
  keep("lsm_log-v1", log, "lsm_log", 0);
  Blob torn = log;
  torn.resize(torn.size() - 2);
  keep("lsm_log-v1-bad-torn", torn, "lsm_log", 0);
  Blob version = log;
  LsmLogHead head = lsm_sample_log_head();
  head.version = 2;
  std::ranges::copy(encode(head), version.begin());
  keep("lsm_log-v1-bad-version", version, "lsm_log", 0);
  std::vector<std::byte> batch;
  append_lsm_put(batch, view_of_text("k"), view_of_text("value"));
  append_lsm_removal(batch, view_of_text("old"));
  seeds["lsm_log/lsm_log-v1-batch"] = batch;
  seeds["lsm_log/lsm_log-v1-batch"].insert(seeds["lsm_log/lsm_log-v1-batch"].begin(), std::byte{1});
}

void make_archive() {
  for (const auto& [name, bytes] : archive_label_samples()) keep(name, bytes, "archive_label");
  for (const auto& [name, bytes] : segment_samples()) keep(name, bytes, "segment");
  for (const auto& [name, bytes] : archive_row_samples()) seeds["archive_rows/" + name] = bytes;
}

}  // namespace

void make_bucket_files() {
  make_lsm_table();
  make_lsm_catalog();
  make_lsm_log();
  make_archive();
}

}  // namespace firn::golden
