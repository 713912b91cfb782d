#include "tools/miner/store/slice_check.h"

#include "objectstore/base/format.h"
#include "objectstore/crypto/merkle.h"
#include "objectstore/manifest.h"

namespace cumulus {

Result<Digest> verify_slice(const SliceKey& key, ByteView manifest, ByteView data) {
  TRY(const Manifest parsed, Manifest::decode(manifest));
  const auto refuse = [&](ErrorKind kind, std::string_view why) {
    return fail(kind, cumulus::format("{}: {}", key.describe(), why));
  };
  if (parsed.header.volume != key.volume)
    return refuse(ErrorKind::invalid, "its manifest is another volume's");
  if (parsed.id() != key.slice.segment)
    return refuse(ErrorKind::invalid, "its manifest is another segment's");
  if (key.slice.index >= parsed.roots.size())
    return refuse(ErrorKind::invalid, "its manifest has not that many slices");
  if (data.size() != parsed.stored_length(key.slice.index))
    return refuse(ErrorKind::corrupt, cumulus::format("{} bytes came, the manifest says {}", data.size(),
                                                      parsed.stored_length(key.slice.index)));
  const Digest root = merkle_root(data);
  if (root != parsed.roots[key.slice.index])
    return refuse(ErrorKind::corrupt, "its bytes do not match the manifest's root");
  return root;
}

}  // namespace cumulus
