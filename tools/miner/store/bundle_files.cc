#include "tools/miner/store/bundle_files.h"

#include <algorithm>
#include <charconv>

#include "objectstore/base/format.h"
#include "objectstore/base/log.h"

namespace cumulus {

using bundle::kBlock;

std::string BundleFiles::path(std::uint32_t number) const {
  return cumulus::format("{}/{:08}.bundle", directory_, number);
}

Result<std::vector<std::uint32_t>> BundleFiles::list() {
  TRY(const auto names, files_.list(directory_));
  std::vector<std::uint32_t> numbers;
  for (const std::string_view name : names) {
    std::uint32_t number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc() && number != 0 &&
        std::string_view(end, name.data() + name.size() - end) == ".bundle")
      numbers.push_back(number);
  }
  std::ranges::sort(numbers);
  return numbers;
}

Task<Status> BundleFiles::prepare(std::shared_ptr<File> file, std::uint32_t number, std::uint64_t size) {
  CO_TRY_OK(co_await file->allocate(size));
  Buffer head(kBlock);
  bundle::FileHeader header;
  header.number = number;
  header.encode(secret_, head.view());
  CO_TRY_OK(co_await file->write_at(0, head.view()));
  CO_TRY_OK(co_await file->datasync());
  co_return co_await files_.sync_directory(directory_);
}

Task<Result<BundleFiles::Made>> BundleFiles::make(std::uint32_t number, std::uint64_t size,
                                                  std::uint64_t size_min, bool may_use_reserve) {
  size = bundle::round_up(size, kBlock);
  size_min = bundle::round_up(size_min, kBlock);
  CO_TRY(const DiskSpace space, files_.space(directory_));
  const std::uint64_t reserve = may_use_reserve ? 0 : std::min(free_min_, space.total / 16);
  const std::uint64_t usable = space.free > reserve ? (space.free - reserve) / kBlock * kBlock : 0;
  size = std::max(size_min, std::min(size, usable));
  if (size > usable)
    co_return fail(
        ErrorKind::no_space,
        cumulus::format("{}: the disk has {} bytes free and {} are kept in reserve: free some space",
                        directory_, space.free, reserve));
  OpenOptions options;
  options.write = true;
  options.create = true;
  options.exclusive = true;
  options.direct = true;
  CO_TRY(auto opened, files_.open(path(number), options));
  const std::shared_ptr<File> file = std::move(opened);
  const Status ready = co_await prepare(file, number, size);
  if (!ready) {
    // If it stays, the next start drops an empty bundle.
    if (const Status removed = files_.remove(path(number)); !removed)
      log_warn("{}", removed.error().message());
    co_return fail(ready.error().within("make bundle " + path(number)));
  }
  co_return Made{number, size, file};
}

Result<std::shared_ptr<File>> BundleFiles::reader(std::uint32_t number) {
  if (const auto found = by_number_.find(number); found != by_number_.end()) {
    readers_.splice(readers_.begin(), readers_, found->second);
    return readers_.front().file;
  }
  OpenOptions options;
  options.write = true;  // punching needs it
  options.direct = true;
  TRY(auto opened, files_.open(path(number), options));
  readers_.push_front({number, std::move(opened)});
  by_number_[number] = readers_.begin();
  if (readers_.size() > kReadersMax) {
    by_number_.erase(readers_.back().number);
    readers_.pop_back();  // reads in flight hold their own reference
  }
  return readers_.front().file;
}

void BundleFiles::forget(std::uint32_t number) {
  const auto found = by_number_.find(number);
  if (found == by_number_.end()) return;
  readers_.erase(found->second);
  by_number_.erase(found);
}

Task<Result<std::size_t>> BundleFiles::read(std::uint32_t number, std::uint64_t offset,
                                            MutableByteView into) {
  CO_TRY(const auto file, reader(number));
  auto got = co_await file->read_at(offset, into);
  if (!got) co_return fail(got.error().within("read " + path(number)));
  co_return got;
}

Result<std::uint64_t> BundleFiles::size(std::uint32_t number) {
  TRY(const auto file, reader(number));
  return file->size();
}

Task<Status> BundleFiles::punch(std::uint32_t number, std::uint64_t offset, std::uint64_t length) {
  CO_TRY(const auto file, reader(number));
  co_return co_await file->punch_hole(offset, length);
}

Task<Status> BundleFiles::cut(std::uint32_t number, std::uint64_t length) {
  CO_TRY(const auto file, reader(number));
  co_return co_await file->truncate(length);
}

Task<Status> BundleFiles::remove(std::uint32_t number) {
  forget(number);
  const Status removed = files_.remove(path(number));
  if (!removed && removed.error().kind() != ErrorKind::not_found) co_return removed;
  co_return co_await files_.sync_directory(directory_);
}

Task<Status> BundleFiles::set_aside(std::uint32_t number) {
  forget(number);
  CO_TRY_OK(files_.rename(path(number), path(number) + ".unreadable"));
  co_return co_await files_.sync_directory(directory_);
}

Task<Status> BundleFiles::check_header(std::uint32_t number) {
  Buffer block(kBlock);
  CO_TRY(const std::size_t got, co_await read(number, 0, block.view()));
  const auto header = bundle::FileHeader::decode(secret_, block.view(0, got));
  if (!header) co_return fail(header.error().within(path(number)));
  if (header->number != number)
    co_return fail(ErrorKind::corrupt,
                   cumulus::format("{}: its header says bundle {}", path(number), header->number));
  co_return Status();
}

}  // namespace cumulus
