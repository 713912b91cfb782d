#include "objectstore/crypto/secret.h"

#include <openssl/crypto.h>

namespace cumulus {

void wipe(MutableByteView bytes) { OPENSSL_cleanse(bytes.data(), bytes.size()); }

}  // namespace cumulus
