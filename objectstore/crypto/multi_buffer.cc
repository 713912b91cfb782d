#include "objectstore/crypto/multi_buffer.h"

#include <memory>

#include "objectstore/base/check.h"

namespace cumulus {
namespace {

struct Free {
  void operator()(IMB_MGR* manager) const { free_mb_mgr(manager); }
};
using Manager = std::unique_ptr<IMB_MGR, Free>;

Manager make_manager() {
  Manager made(alloc_mb_mgr(0));
  CHECK(made != nullptr);
  init_mb_mgr_auto(made.get(), nullptr);
  CHECK(imb_get_errno(made.get()) == 0);
  return made;
}

Manager make_hash_manager() {
  Manager made = make_manager();
  constexpr std::uint64_t kTwoLanes = IMB_FEATURE_SHANI | IMB_FEATURE_AVX2;
  if ((made->features & kTwoLanes) == kTwoLanes) init_mb_mgr_avx2(made.get());
  CHECK(imb_get_errno(made.get()) == 0);
  return made;
}

}  // namespace

IMB_MGR& cipher_lanes() {
  thread_local const Manager manager = make_manager();
  return *manager;
}

IMB_MGR& hash_lanes() {
  thread_local const Manager manager = make_hash_manager();
  return *manager;
}

}  // namespace cumulus
