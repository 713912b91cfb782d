#include "blockdev/images.h"

#include "objectstore/base/check.h"
#include "objectstore/base/format.h"

namespace cumulus {

Task<Result<DatasetId>> create_image(Volume& volume, std::string name, std::uint64_t size, WallTime now) {
  if (size == 0 || size > kImageSizeMax || name.find_first_of("@/") != std::string::npos)
    co_return fail(ErrorKind::invalid,
                   format("an image has a name without '@' and '/', and 1 to {} bytes", kImageSizeMax));
  const DatasetOptions options = kImageDataset;
  CO_TRY(const DatasetId id, co_await volume.create_dataset(name, options));
  CO_TRY(const ObjectId object, volume.allocate_object(id));
  CHECK(object == kImageObject);
  ImageHeader header;
  header.created_at = now;
  Transaction transaction;
  transaction.create({id, object}, header.encode());
  transaction.truncate({id, object}, size);
  const auto made = co_await volume.commit(std::move(transaction));
  if (made) co_return id;
  const Status undone = co_await volume.remove_dataset(id);
  static_cast<void>(undone);  // the first error is the one that says why
  co_return fail(made.error());
}

}  // namespace cumulus
