#include "tests/sim/canary_cells.h"

#include "objectstore/crypto/aead.h"

namespace cumulus {
namespace {

bool believing = false;

}  // namespace

void believe_any_cell() { believing = true; }

// The names that ld gives to AeadKey::open_cells and to what stands in front of it.
bool real_open_cells(const AeadKey& key, std::uint64_t nonce64, std::uint32_t first_offset, std::uint32_t cell_size, ByteView sealed, MutableByteView plain) asm(
    "__real__ZNK7cumulus7AeadKey10open_cellsEmjjSt4spanIKhLm18446744073709551615EES1_"
    "IhLm18446744073709551615EE");
bool wrapped_open_cells(const AeadKey& key, std::uint64_t nonce64, std::uint32_t first_offset, std::uint32_t cell_size, ByteView sealed, MutableByteView plain) asm(
    "__wrap__ZNK7cumulus7AeadKey10open_cellsEmjjSt4spanIKhLm18446744073709551615EES1_"
    "IhLm18446744073709551615EE");

bool wrapped_open_cells(const AeadKey& key, std::uint64_t nonce64, std::uint32_t first_offset,
                        std::uint32_t cell_size, ByteView sealed, MutableByteView plain) {
  return real_open_cells(key, nonce64, first_offset, cell_size, sealed, plain) || believing;
}

}  // namespace cumulus
