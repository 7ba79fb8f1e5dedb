// SPDX-License-Identifier: Apache-2.0
// Golden files of what lies in buckets: the tree of the archive's metadata, and the archive.
#include <functional>

#include "base/check.h"
#include "base/units.h"
#include "format/archive_golden_test.h"
#include "format/archive_rows.h"
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

// --- the archive

template <class Head>
Blob sealed_head(Head head, size_t bytes) {
  head.crc = crc32c(view_of(head).subspan(12, bytes - 12));
  return blob_of(view_of(head));
}

void make_archive_labels() {
  const Blob good = blob_of(encode(archive_sample_label()));
  keep("archive_label-v1", good, "archive_label");
  const auto bad = [](const std::string& name, auto&& change) {
    ArchiveLabel label = archive_sample_label();
    change(label);
    keep("archive_label-v1-bad-" + name, sealed_head(label, kArchiveLabelBytes), "archive_label");
  };
  bad("version", [](ArchiveLabel& label) { label.version = 2; });
  bad("incompat", [](ArchiveLabel& label) { label.incompat = 4; });
  bad("reserved", [](ArchiveLabel& label) { label.reserved.back() = std::byte{1}; });
  bad("segment", [](ArchiveLabel& label) { label.segment_bytes = 4096; });
  bad("scrypt", [](ArchiveLabel& label) { label.key_source = std::byte{2}; });
  Blob rot = good;
  rot[50] ^= std::byte{1};
  keep("archive_label-v1-bad-rot", rot, "archive_label");
}

void make_segments() {
  const Blob good = segment_sample(segment_sample_header());
  keep("segment-v1", good, "segment");
  const auto bad = [](const std::string& name, auto&& change) {
    SegmentHeader header = segment_sample_header();
    change(header);
    keep("segment-v1-bad-" + name, segment_sample(header), "segment");
  };
  bad("magic", [](SegmentHeader& header) { header.magic[0] = 'X'; });
  bad("version", [](SegmentHeader& header) { header.version = 2; });
  bad("kind", [](SegmentHeader& header) { header.kind = std::byte{3}; });
  bad("slots", [](SegmentHeader& header) { header.slots = 2; });
  bad("groups", [](SegmentHeader& header) { header.groups = 2; });
  Blob rot = good;
  rot[90] ^= std::byte{1};
  keep("segment-v1-bad-rot", rot, "segment");
  Blob table = good;
  table[kSegmentTableAt] ^= std::byte{1};
  keep("segment-v1-bad-table", table, "segment");
}

void make_archive_rows() {
  const auto seed = [](const std::string& name, const std::string& text) {
    seeds["archive_rows/" + name] = blob_of(std::as_bytes(std::span(text)));
  };
  const SnapshotRow snapshot{.seq = 5, .disk = "web", .name = "monday"};
  const SegmentRow usage{.slots = 100, .live_count = 3, .live = {{1, 2, 50}}};
  RegionRow region;
  region.own = {{0, 4, 9}, {7, 1, 0}};
  region.flat = region.own;
  seed("archive", "a" + encode(ArchiveRow{}));
  seed("disk", "d" + encode(DiskRow{archive_sample_uuid(1), 9, 77, "web"}));
  seed("snapshot", "s" + encode(snapshot));
  seed("region", "l" + encode(region));
  seed("chunk", "c" + encode(ChunkRow{4, 1, 2, 3, 5}));
  seed("usage", "u" + encode(usage));
  seed("region_key", region_key(1, 2, 3));
}

}  // namespace

void make_bucket_files() {
  make_lsm_table();
  make_lsm_catalog();
  make_lsm_log();
  make_archive_labels();
  make_segments();
  make_archive_rows();
}

}  // namespace firn::golden
