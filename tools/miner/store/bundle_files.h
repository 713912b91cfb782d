// BundleFiles: the files of DIR/bundles by number: made, read, punched, cut and removed. It knows names,
// sizes and alignment, nothing of batches. At most kReadersMax files are open for reading. Reactor thread.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "objectstore/io/file.h"
#include "tools/miner/store/bundle_format.h"

namespace cumulus {

class BundleFiles {
 public:
  static constexpr std::size_t kReadersMax = 256;

  // `free_min`: free bytes that making a bundle for slices must leave on the disk (for the index and
  // removals).
  BundleFiles(FileSystem& files, std::string directory, const bundle::StoreSecret& secret,
              std::uint64_t free_min)
      : files_(files), directory_(std::move(directory)), secret_(secret), free_min_(free_min) {}

  struct Made {
    std::uint32_t number = 0;
    std::uint64_t size = 0;
    std::shared_ptr<File> file;
  };

  // Numbers of the bundles there are, sorted.
  Result<std::vector<std::uint32_t>> list();
  // A new bundle of `size` bytes, or less when the disk has not that much, down to `size_min`: allocated,
  // headed, its name durable. `reserved` space is kept free unless `may_use_reserve`. no_space, io.
  Task<Result<Made>> make(std::uint32_t number, std::uint64_t size, std::uint64_t size_min,
                          bool may_use_reserve);

  // Whole blocks into `into` (direct_alignment()-aligned memory and length); short only at the file's end.
  Task<Result<std::size_t>> read(std::uint32_t number, std::uint64_t offset, MutableByteView into);
  Result<std::uint64_t> size(std::uint32_t number);
  Task<Status> punch(std::uint32_t number, std::uint64_t offset, std::uint64_t length);
  Task<Status> cut(std::uint32_t number, std::uint64_t length);
  // Gone for good when it returns; one that is not there counts as gone.
  Task<Status> remove(std::uint32_t number);
  // Out of list(), under the name NNNNNNNN.bundle.unreadable.
  Task<Status> set_aside(std::uint32_t number);
  // Checks the header: corrupt or unsupported when it is not a bundle of this store with this number.
  Task<Status> check_header(std::uint32_t number);

  std::string path(std::uint32_t number) const;

 private:
  struct Reader {
    std::uint32_t number;
    std::shared_ptr<File> file;
  };
  Result<std::shared_ptr<File>> reader(std::uint32_t number);
  void forget(std::uint32_t number);
  Task<Status> prepare(std::shared_ptr<File> file, std::uint32_t number, std::uint64_t size);

  FileSystem& files_;
  std::string directory_;
  const bundle::StoreSecret& secret_;
  std::uint64_t free_min_;
  std::list<Reader> readers_;  // most recently used first
  std::unordered_map<std::uint32_t, std::list<Reader>::iterator> by_number_;
};

}  // namespace cumulus
