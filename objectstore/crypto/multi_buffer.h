// The calling thread's ipsec-mb manager: its job interface is not thread-safe, so each thread has one. Used
// only by aead.cc and digest.cc.
#pragma once

#define NO_COMPAT_IMB_API_053
#include <intel-ipsec-mb.h>

namespace cumulus {

IMB_MGR& multi_buffer();

}  // namespace cumulus
