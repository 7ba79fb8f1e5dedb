// SPDX-License-Identifier: Apache-2.0
// The files of a pool directory: making them, finding them, the superblock's two copies and the
// lock.
#pragma once

#include <memory>
#include <string>

#include "format/data_label.h"
#include "format/superblock.h"
#include "io/io.h"
#include "store/pool.h"
#include "store/region.h"

namespace firn::store {

inline std::string superblock_path(const std::string& pool) { return pool + "/superblock"; }
inline std::string meta_path(const std::string& pool) { return pool + "/meta"; }
inline std::string journal_path(const std::string& pool) { return pool + "/journal"; }
inline std::string data_path(const std::string& pool) { return pool + "/data"; }
inline std::string shadow_path(const std::string& pool) { return pool + "/shadow"; }
inline std::string lock_path(const std::string& pool) { return pool + "/lock"; }

// P8: refused with the holder's host and pid. The lock lives as long as the file.
Result<std::unique_ptr<File>> lock_pool(Io& io, const std::string& pool, bool exclusive);

struct SuperblockState {
  format::Superblock best;
  bool both_good = false;
};
// The newer valid copy; a torn or rotten one beside it is logged, not fatal.
Result<SuperblockState> read_superblock(Io& io, File& file, const std::string& pool);
// Writes both copies, one after the other with a flush between, so that one is always whole; and
// both always name the current epoch, so that losing either never brings an old journal back to
// life.
Result<void> write_superblock(Io& io, File& file, format::Superblock superblock);

Result<std::unique_ptr<Region>> open_journal(Io& io, const std::string& pool,
                                             const format::Superblock& superblock, bool writable);
// The data file is this pool's: its label says so, else Errc::corrupt naming both.
Result<void> check_label(Io& io, File& data, const format::Uuid& uuid);
// All files of a new pool, the superblock last.
Result<void> make_files(Io& io, const std::string& pool, const PoolShape& shape);

}  // namespace firn::store
