#include "blockdev/image_header.h"

#include <bit>

#include "objectstore/base/codec.h"
#include "objectstore/base/format.h"

namespace cumulus {
namespace {

constexpr std::uint32_t kMagic = 0x4B534443;  // "CDSK"
constexpr std::uint8_t kVersion = 1;

}  // namespace

Bytes ImageHeader::encode() const {
  Bytes header;
  Encoder out(header);
  out.u32(kMagic);
  out.u8(kVersion);
  out.u32(0);  // incompatible features
  out.u64(created_at);
  out.u32(block_preferred);
  return header;
}

Result<ImageHeader> ImageHeader::decode(ByteView header) {
  Decoder in(header);
  if (in.u32() != kMagic) return fail(ErrorKind::corrupt, "the object's header is not an image's");
  const unsigned version = in.u8();
  const std::uint32_t features = in.u32();
  if (in.ok() && (version != kVersion || features != 0))
    return fail(
        ErrorKind::unsupported,
        format("the image is of version {} with features {:#x}: use a newer program", version, features));
  ImageHeader image;
  image.created_at = in.u64();
  image.block_preferred = in.u32();
  if (!in.done() || !std::has_single_bit(image.block_preferred) || image.block_preferred < 512 ||
      image.block_preferred > (1u << 20))
    return fail(ErrorKind::corrupt, "the image's header does not parse");
  return image;
}

}  // namespace cumulus
