#include "objectstore/io/file.h"

namespace cumulus {

namespace {
std::string parent_of(const std::string& path) {
  const auto slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}
}  // namespace

Task<Status> File::write_durable_at(std::uint64_t offset, ByteView data) {
  CO_TRY_OK(co_await write_at(offset, data));
  co_return co_await datasync();
}

Task<Status> FileSystem::replace_file(std::string path, Bytes content) {
  const std::string temporary = path + ".new";
  {
    CO_TRY(auto file, open(temporary, {.write = true, .create = true}));
    CO_TRY_OK(co_await file->truncate(0));
    CO_TRY_OK(co_await file->write_at(0, content));
    CO_TRY_OK(co_await file->datasync());
  }
  CO_TRY_OK(rename(temporary, path));
  co_return co_await sync_directory(parent_of(path));
}

Task<Result<Bytes>> FileSystem::read_file(std::string path, std::size_t size_max) {
  CO_TRY(auto file, open(path, {}));
  CO_TRY(const std::uint64_t size, file->size());
  if (size > size_max)
    co_return fail(ErrorKind::invalid, path + ": larger than expected (" + std::to_string(size) + " bytes)");
  Bytes content(size);
  CO_TRY(const std::size_t got, co_await file->read_at(0, content));
  content.resize(got);
  co_return content;
}

}  // namespace cumulus
