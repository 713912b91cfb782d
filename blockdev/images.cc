#include "blockdev/images.h"

#include "blockdev/image_difference.h"
#include "objectstore/base/check.h"
#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr std::string_view kMarkMagic = "CIMP";
constexpr std::string_view kMarkName = "import";

}  // namespace

Result<const DatasetInfo*> image_info(const Volume& volume, DatasetId image) {
  const DatasetInfo* info = volume.find_dataset(image);
  if (info == nullptr) return fail(ErrorKind::not_found, "the image was removed meanwhile");
  return info;
}

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

Result<DatasetId> find_image(const Volume& volume, const std::string& name) {
  const DatasetInfo* info = volume.find_dataset(name);
  if (info == nullptr || info->type != DatasetType::image)
    return fail(ErrorKind::not_found,
                format("there is no image '{}': 'cumulus image ls' shows those that are", name));
  return info->id;
}

Task<Result<std::uint64_t>> image_size(Volume& volume, DatasetId image) {
  CO_TRY(const DatasetInfo* info, image_info(volume, image));
  const View head = info->head;
  CO_TRY(const auto found, co_await volume.stat(head, kImageObject));
  if (!found) co_return fail(ErrorKind::corrupt, "the image was never finished: remove it and make it again");
  co_return found->size;
}

Task<Status> resize_image(Volume& volume, DatasetId image, std::uint64_t size, bool shrink) {
  if (size == 0 || size > kImageSizeMax)
    co_return fail(ErrorKind::invalid, format("an image has 1 to {} bytes", kImageSizeMax));
  CO_TRY(const std::uint64_t now, co_await image_size(volume, image));
  if (size < now && !shrink)
    co_return fail(
        ErrorKind::invalid,
        format("the image has {} bytes: {} would cut off its end; give --shrink to have that", now, size));
  Transaction transaction;
  transaction.truncate({image, kImageObject}, size);
  CO_TRY_OK(co_await volume.commit(std::move(transaction)));
  co_return Status();
}

Bytes ImportMark::encode() const {
  Bytes bytes;
  Encoder out(bytes);
  out.bytes(view_of(kMarkMagic));
  out.u8(1);
  out.u64(position);
  out.u64(source_size);
  out.u64(static_cast<std::uint64_t>(source_modified_ns));
  return bytes;
}

Result<ImportMark> ImportMark::decode(ByteView bytes) {
  Decoder in(bytes);
  if (text_of(in.bytes(kMarkMagic.size())) != kMarkMagic || !in.ok())
    return fail(ErrorKind::corrupt, "the image's note of its import is damaged: remove the image");
  if (in.u8() != 1) return fail(ErrorKind::unsupported, "the image is being imported by a newer program");
  ImportMark mark;
  mark.position = in.u64();
  mark.source_size = in.u64();
  mark.source_modified_ns = static_cast<std::int64_t>(in.u64());
  if (!in.done())
    return fail(ErrorKind::corrupt, "the image's note of its import is damaged: remove the image");
  return mark;
}

Task<Result<std::optional<Bytes>>> noted_mark(Volume& volume, DatasetId image, std::string name) {
  CO_TRY(const DatasetInfo* info, image_info(volume, image));
  const View head = info->head;
  Bytes key(name.begin(), name.end());
  co_return co_await volume.xattr(head, kImageObject, std::move(key));
}

Task<Result<std::optional<ImportMark>>> import_mark(Volume& volume, DatasetId image) {
  std::string name(kMarkName);
  CO_TRY(const auto value, co_await noted_mark(volume, image, std::move(name)));
  if (!value) co_return std::nullopt;
  CO_TRY(const ImportMark mark, ImportMark::decode(*value));
  co_return mark;
}

Task<Status> check_import_done(Volume& volume, DatasetId image) {
  CO_TRY(const DatasetInfo* info, image_info(volume, image));
  const std::string name = info->name;
  CO_TRY(const auto mark, co_await import_mark(volume, image));
  if (mark)
    co_return fail(
        ErrorKind::unavailable,
        format("the import of '{}' is not finished ({} of {} bytes): run it again, or remove the image", name,
               mark->position, mark->source_size));
  CO_TRY(const std::string receiving, co_await unfinished_reception(volume, image));
  if (!receiving.empty())
    co_return fail(ErrorKind::unavailable,
                   format("the import of '{}' into '{}' is not finished: give its stream again, roll back to "
                          "a snapshot, or remove the image",
                          receiving, name));
  co_return Status();
}

Task<Status> set_import_mark(Volume& volume, DatasetId image, std::optional<ImportMark> mark) {
  const ObjectRef object{image, kImageObject};
  const Bytes name(kMarkName.begin(), kMarkName.end());
  Transaction transaction;
  if (mark) transaction.set_xattr(object, name, mark->encode());
  if (!mark) transaction.remove_xattr(object, name);
  CO_TRY_OK(co_await volume.commit(std::move(transaction)));
  co_return Status();
}

}  // namespace cumulus
