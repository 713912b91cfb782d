// AllowList: which volumes may store how much here: DIR/allow, one line a volume, written by `cumulus-miner
// allow`; or everybody with one quota (`run --open`). Re-read when asked. Reactor thread.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "objectstore/base/ids.h"
#include "objectstore/io/file.h"

namespace cumulus {

class AllowList {
 public:
  // `open_quota`: admits volumes that have no line.
  AllowList(FileSystem& files, std::string path, std::optional<std::uint64_t> open_quota)
      : files_(files), path_(std::move(path)), open_quota_(open_quota) {}

  // A missing file is an empty list. invalid: a line does not parse; the list stays as it was.
  Task<Status> reload();
  // Bytes that the volume may store; nothing: it is not admitted.
  std::optional<std::uint64_t> quota(const VolumeId& volume) const {
    const auto found = quotas_.find(volume);
    return found != quotas_.end() ? found->second : open_quota_;
  }
  std::size_t size() const { return quotas_.size(); }
  // Has a line of its own: not admitted by `run --open` alone.
  bool lists(const VolumeId& volume) const { return quotas_.contains(volume); }

  // "VOLUME-ID BYTES" lines; '#' begins a comment.
  static Result<std::map<VolumeId, std::uint64_t>> parse(std::string_view text);
  static std::string print(const std::map<VolumeId, std::uint64_t>& quotas);
  static constexpr std::size_t kFileMax = 16 << 20;

 private:
  FileSystem& files_;
  std::string path_;
  std::optional<std::uint64_t> open_quota_;
  std::map<VolumeId, std::uint64_t> quotas_;
};

}  // namespace cumulus
