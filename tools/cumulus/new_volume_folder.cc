#include "tools/cumulus/new_volume_folder.h"

#include <fcntl.h>
#include <filesystem>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "objectstore/base/format.h"
#include "tools/cumulus/client.h"

namespace cumulus {

Result<NewVolumeFolder> NewVolumeFolder::make(const Home& home, const std::string& name,
                                              const std::string& command) {
  TRY_OK(check_volume_name(name));
  const std::string folder = home.volume(name);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return fail(from_errno(error.value(), "make directory " + folder));
  const bool fresh = std::filesystem::is_empty(folder, error);
  if (error) return fail(from_errno(error.value(), "look into " + folder));
  const int mark = ::open(mark_of(folder).c_str(), O_RDWR | O_CLOEXEC | (fresh ? O_CREAT : 0), 0600);
  if (mark < 0 && errno == ENOENT)
    return fail(ErrorKind::exists,
                format("there is a volume '{}' in {} already: choose another name, or move {} away", name,
                       home.path(), folder));
  if (mark < 0) return fail(from_errno(errno, "write " + mark_of(folder)));
  if (::flock(mark, LOCK_EX | LOCK_NB) != 0) {
    ::close(mark);
    return fail(ErrorKind::exists,
                format("another command makes or recovers volume '{}' in {} right now", name, home.path()));
  }
  if (const Status cleared = clear(home, name); !cleared) {
    ::close(mark);
    return fail(cleared.error());
  }
  NewVolumeFolder made(home, name, mark);
  ::chmod(folder.c_str(), 0700);
  const std::string text = command + "\n";
  if (::ftruncate(mark, 0) != 0 || ::pwrite(mark, text.data(), text.size(), 0) < 0 || ::fsync(mark) != 0)
    return fail(from_errno(errno, "write " + mark_of(folder)));
  return made;
}

// What an interrupted command left, once its daemon is gone.
Status NewVolumeFolder::clear(const Home& home, const std::string& name) {
  const std::string folder = home.volume(name);
  if (DaemonSocket::connect(folder)) TRY_OK(Client(home, name).stop());
  if (const int lock = ::open((folder + "/lock").c_str(), O_RDWR | O_CLOEXEC); lock >= 0) {
    const bool free = lock_soon(lock);  // a daemon that has refused is gone in a moment
    ::close(lock);
    if (!free)
      return fail(ErrorKind::exists, format("an interrupted command's daemon still works on volume '{}' in "
                                            "{}: wait until it is through",
                                            name, home.path()));
  }
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    if (entry->path() != mark_of(folder)) std::filesystem::remove_all(entry->path(), error);
  if (error) return fail(from_errno(error.value(), "clear " + folder));
  return {};
}

NewVolumeFolder::NewVolumeFolder(NewVolumeFolder&& other) noexcept
    : home_(std::move(other.home_)), name_(std::move(other.name_)), mark_(std::exchange(other.mark_, -1)) {}

NewVolumeFolder::~NewVolumeFolder() {
  if (mark_ < 0) return;
  if (const Status cleared = clear(home_, name_); cleared) {
    std::error_code ignored;
    std::filesystem::remove_all(home_.volume(name_), ignored);
  }
  ::close(mark_);
}

Status NewVolumeFolder::keep() {
  const std::string mark = mark_of(home_.volume(name_));
  if (::unlink(mark.c_str()) != 0 && errno != ENOENT) return fail(from_errno(errno, "remove " + mark));
  ::close(std::exchange(mark_, -1));
  return {};
}

}  // namespace cumulus
