// SimDisk: a machine's disk in virtual time, and SimFileSystem: the port to it of one process. Keeps apart
// what was written and what is durable, for bytes and for names.
//
// A power cut keeps, of what was not synced, any subset: of the 512-byte sectors written, of the sizes, and
// of the names made, renamed or removed; each is drawn from the seed, so writes tear and are reordered. A
// killed process keeps all that it wrote, and any sectors of what it was writing. A failed sync says so once
// and drops the file's unsynced sectors, as Linux does, while they can still be read. Directories are where
// something lies in them: none is missing, and none is lost. One thread.
#pragma once

#include <array>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "objectstore/io/file.h"
#include "objectstore/io/runtime.h"
#include "tests/fakes/seeded_random.h"

namespace cumulus {

enum class DiskFault : std::uint8_t {
  read_error,
  write_error,
  sync_error,  // with pages dropped
  full,        // no_space answered
  rot,
  killed_writing,  // a write was in flight when its process died
  sector_lost,     // at a power cut
  sector_kept,     // at a power cut, though never synced
  name_lost,
  size_lost,
  count
};
using DiskFaultCounts = std::array<std::uint64_t, static_cast<std::size_t>(DiskFault::count)>;
std::string_view to_string(DiskFault fault);

// Chances in 10,000 operations.
struct DiskWeather {
  unsigned read_error = 0;
  unsigned write_error = 0;
  unsigned sync_error = 0;
  Duration delay_max = std::chrono::microseconds(300);
};

class SimDisk {
 public:
  // Files by path, as they are when the power comes back.
  using Image = std::map<std::string, Bytes>;

  explicit SimDisk(std::uint64_t seed) : random_(seed) {}

  void set_weather(DiskWeather weather) { weather_ = weather; }
  void set_capacity(std::uint64_t bytes) { capacity_ = bytes; }
  // The canary's lie: syncs report success and make nothing durable.
  void ignore_syncs(bool ignore) { ignore_syncs_ = ignore; }

  // The process that used it died: writes in flight end anywhere.
  void process_died();
  void power_cut();
  // What a power cut now would leave; changes nothing.
  Image image_after_power_cut();
  void restore(const Image& image);
  // Alters a byte, durably, of a file whose path has `part` in it. False when there is none.
  bool rot(std::string_view part);
  // Removes a file, durably. False when there is none of that name.
  bool lose(const std::string& path);
  // A file as the next reader finds it.
  const std::map<std::string, ByteView> files() const;
  // Of those, the ones that were changed after change number `change`; changes() numbers the newest.
  std::map<std::string, ByteView> files_changed_after(std::uint64_t change) const;
  std::uint64_t changes() const { return changes_; }
  // What a power cut keeps whatever else it keeps: durable names, durable bytes.
  std::map<std::string, ByteView> durable_files() const;

  std::uint64_t used() const;
  const DiskFaultCounts& faults() const { return faults_; }

 private:
  friend class SimFileSystem;
  static constexpr std::uint64_t kSector = 512;
  struct Node {
    Bytes written;
    Bytes durable;
    std::set<std::uint64_t> unsynced;  // offsets of sectors
    std::uint64_t changed = 0;         // by which change of the disk
  };
  using NodePtr = std::shared_ptr<Node>;
  using Names = std::map<std::string, NodePtr>;
  // One atomic change of names: all `removed` go and all `added` come.
  struct NameChange {
    std::set<std::string> directories;  // syncing any of them makes it durable
    std::vector<std::string> removed;
    Names added;
  };
  struct InFlight {
    NodePtr node;
    std::uint64_t offset = 0;
    ByteView data;
  };

  void count(DiskFault fault, std::uint64_t amount = 1) {
    faults_[static_cast<std::size_t>(fault)] += amount;
  }
  bool happens(unsigned per_ten_thousand) {
    return per_ten_thousand != 0 && random_.below(10'000) < per_ten_thousand;
  }
  void put(Node& node, std::uint64_t offset, ByteView data);
  void put_some(Node& node, std::uint64_t offset, ByteView data);
  Status sync(Node& node, const std::set<std::uint64_t>& sectors, const std::string& path);
  void change_names(NameChange change);
  static void apply(Names& names, const NameChange& change);

  SeededRandom random_;
  DiskWeather weather_;
  std::uint64_t capacity_ = ~std::uint64_t{0};
  bool ignore_syncs_ = false;
  Names names_;
  Names durable_names_;
  std::list<NameChange> pending_;
  std::list<InFlight> in_flight_;
  DiskFaultCounts faults_{};
  std::uint64_t changes_ = 0;
};

class SimFileSystem final : public FileSystem {
 public:
  SimFileSystem(Runtime& runtime, SimDisk& disk) : runtime_(runtime), disk_(disk) {}

  Result<std::unique_ptr<File>> open(const std::string& path, OpenOptions options) override;
  Status create_directories(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status remove(const std::string& path) override;
  Result<bool> exists(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& directory) override;
  Task<Status> sync_directory(const std::string& path) override;
  Result<DiskSpace> space(const std::string& path) override;
  std::uint32_t direct_alignment(const std::string&) override { return SimDisk::kSector; }

 private:
  class OpenFile;
  Task<void> take_time();

  Runtime& runtime_;
  SimDisk& disk_;
};

}  // namespace cumulus
