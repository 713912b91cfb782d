#include "objectstore/crypto/multi_buffer.h"

#include <memory>

#include "objectstore/base/check.h"

namespace cumulus {

IMB_MGR& multi_buffer() {
  struct Free {
    void operator()(IMB_MGR* manager) const { free_mb_mgr(manager); }
  };
  thread_local const std::unique_ptr<IMB_MGR, Free> manager = [] {
    std::unique_ptr<IMB_MGR, Free> made(alloc_mb_mgr(0));
    CHECK(made != nullptr);
    init_mb_mgr_auto(made.get(), nullptr);  // the best instruction set of this processor
    CHECK(imb_get_errno(made.get()) == 0);
    return made;
  }();
  return *manager;
}

}  // namespace cumulus
