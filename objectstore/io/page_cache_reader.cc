#include "objectstore/io/page_cache_reader.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace cumulus {

bool read_cached(int descriptor, std::uint64_t offset, MutableByteView into) {
  const iovec part{into.data(), into.size()};
  const ssize_t got = ::preadv2(descriptor, &part, 1, static_cast<off_t>(offset), RWF_NOWAIT);
  return got >= 0 && static_cast<std::size_t>(got) == into.size();
}

Result<std::unique_ptr<PageCacheReader>> PageCacheReader::open(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return fail(from_errno(errno, "open " + path));
  struct stat about{};
  if (::fstat(descriptor, &about) != 0) {
    const int error = errno;
    ::close(descriptor);
    return fail(from_errno(error, "look at " + path));
  }
  return std::unique_ptr<PageCacheReader>(
      new PageCacheReader(descriptor, static_cast<std::uint64_t>(about.st_size)));
}

PageCacheReader::~PageCacheReader() { ::close(descriptor_); }

}  // namespace cumulus
