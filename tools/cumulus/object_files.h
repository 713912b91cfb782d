// One object between a bucket and a file, a folder's files between it and a bucket. Blocking; one thread, and
// one file being written at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "tools/cumulus/client.h"

namespace cumulus {

// VOLUME's BUCKET or BUCKET@SNAPSHOT.
Json bucket_request(const std::string& name, const std::string& bucket);

// `path` is a file, a pipe, or - for standard input.
Result<Json> put_file(Client& client, const std::string& bucket, const std::string& object,
                      const std::string& path, bool sync);
// Into a temporary file beside it first: the file appears whole or not at all, and the temporary one goes
// with whatever ends this program but SIGKILL. Devices and pipes are written as they are.
Result<Json> get_file(Client& client, const std::string& bucket, const std::string& object,
                      const std::string& path);
Result<Json> get_to_stdout(Client& client, const std::string& bucket, const std::string& object);

// The regular files of a folder, symbolic links to files too, named by their paths below it after `prefix` (.
// or empty for none). What has no bytes to store is counted.
class FolderFiles {
 public:
  FolderFiles(std::filesystem::path top, std::string prefix);

  using Visit = std::function<Status(const std::string& name, const std::string& path)>;
  // invalid: not a folder.
  Status for_each(const Visit& visit);
  // "2 empty folders, 1 pipe" of the last walk; empty when nothing was left out.
  std::string left_out() const;

 private:
  std::filesystem::path top_;
  std::string prefix_;
  std::map<std::string, std::uint64_t> left_out_;
};

}  // namespace cumulus
