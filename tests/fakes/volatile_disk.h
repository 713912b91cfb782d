// VolatileDisk: a FileSystem in memory that keeps apart what was written and what is durable, for crash tests
// on a real reactor. A power cut keeps a random subset of the 512-byte sectors that were written and not
// synced; a kill keeps them all. A failed sync drops the file's unsynced sectors for good and says so once,
// as Linux does. Operations take random short times, so that writes in flight complete in any order.
//
// After die() nothing reaches the disk any more and every operation fails: whoever used it unwinds; revive()
// brings back what survived. Reactor thread.
#pragma once

#include <map>
#include <memory>
#include <random>
#include <string>

#include "objectstore/io/file.h"
#include "objectstore/io/runtime.h"

namespace cumulus {

class VolatileDisk final : public FileSystem {
 public:
  VolatileDisk(Runtime& runtime, std::uint64_t seed) : runtime_(runtime), random_(seed) {}

  // Faults: the disk dies after this many more operations; chances in 1000 that one fails.
  void die_after(std::uint64_t operations) { operations_left_ = operations; }
  void set_failures(unsigned write_per_mille, unsigned sync_per_mille) {
    write_failures_ = write_per_mille;
    sync_failures_ = sync_per_mille;
  }
  // No read succeeds while it is on.
  void fail_reads(bool fail) { reads_fail_ = fail; }
  // Bytes that files may take together; allocate() beyond it is no_space.
  void set_capacity(std::uint64_t bytes) { capacity_ = bytes; }
  // The canary's lie: syncs report success and do nothing.
  void ignore_syncs(bool ignore) { ignore_syncs_ = ignore; }

  void die() { dead_ = true; }
  bool dead() const { return dead_; }
  void revive(bool power_was_cut);
  // Flips a bit of what is durable and of what is read.
  void rot(const std::string& path, std::uint64_t offset);
  Bytes content(const std::string& path) const;
  std::uint64_t operations() const { return operations_; }
  std::uint64_t failures() const { return failures_; }

  Result<std::unique_ptr<File>> open(const std::string& path, OpenOptions options) override;
  Status create_directories(const std::string&) override { return {}; }
  Status rename(const std::string& from, const std::string& to) override;
  Status remove(const std::string& path) override;
  Result<bool> exists(const std::string& path) override { return nodes_.contains(path); }
  Result<std::vector<std::string>> list(const std::string& directory) override;
  Task<Status> sync_directory(const std::string& path) override;
  Result<DiskSpace> space(const std::string&) override;
  std::uint32_t direct_alignment(const std::string&) override { return kSector; }

 private:
  static constexpr std::uint64_t kSector = 512;
  struct Node {
    Bytes written;
    Bytes durable;
    std::map<std::uint64_t, bool> unsynced;  // sectors
    bool name_durable = false;
  };
  class OpenFile;

  Task<Status> begin_operation();
  bool chance(unsigned per_mille) { return per_mille != 0 && random_() % 1000 < per_mille; }
  Status sync_node(Node& node);
  std::uint64_t used() const;

  Runtime& runtime_;
  std::mt19937_64 random_;
  std::map<std::string, std::shared_ptr<Node>> nodes_;
  std::uint64_t operations_ = 0;
  std::uint64_t operations_left_ = ~std::uint64_t{0};
  std::uint64_t failures_ = 0;
  std::uint64_t capacity_ = ~std::uint64_t{0};
  bool reads_fail_ = false;
  unsigned write_failures_ = 0;
  unsigned sync_failures_ = 0;
  bool ignore_syncs_ = false;
  bool dead_ = false;
};

}  // namespace cumulus
