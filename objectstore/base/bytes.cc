#include "objectstore/base/bytes.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <sys/mman.h>

#include "objectstore/base/check.h"

namespace cumulus {
namespace {

constexpr std::size_t kHugePage = 2u << 20;

}  // namespace

std::string to_hex(ByteView bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::uint8_t byte : bytes) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

bool from_hex(std::string_view text, MutableByteView into) {
  if (text.size() != into.size() * 2) return false;
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  for (std::size_t i = 0; i < into.size(); ++i) {
    const int high = digit(text[2 * i]);
    const int low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    into[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return true;
}

void Buffer::Free::operator()(std::uint8_t* memory) const { std::free(memory); }

Buffer::Buffer(std::size_t size) : size_(size) {
  const std::size_t alignment = size >= kHugePage ? kHugePage : kAlignment;
  const std::size_t rounded = (std::max<std::size_t>(size, 1) + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = nullptr;
  if (::posix_memalign(&memory, alignment, rounded) != 0) throw std::bad_alloc();
  memory_.reset(static_cast<std::uint8_t*>(memory));
  // A segment's buffer in pages of 4 KiB costs two thousand page faults. Advice: a kernel without such pages
  // declines.
  if (size >= kHugePage) static_cast<void>(::madvise(memory, rounded / kHugePage * kHugePage, MADV_HUGEPAGE));
}

BufferPool::BufferPool(std::size_t buffer_size, std::size_t kept_max) : shared_(std::make_shared<Shared>()) {
  shared_->buffer_size = buffer_size;
  shared_->kept_max = kept_max;
}

std::shared_ptr<Buffer> BufferPool::acquire() {
  std::unique_ptr<Buffer> buffer;
  {
    const std::lock_guard lock(shared_->mutex);
    if (!shared_->idle.empty()) {
      buffer = std::move(shared_->idle.back());
      shared_->idle.pop_back();
    }
  }
  if (!buffer) buffer = std::make_unique<Buffer>(shared_->buffer_size);
  return {buffer.release(), [shared = shared_](Buffer* returned) {
            std::unique_ptr<Buffer> owned(returned);
            const std::lock_guard lock(shared->mutex);
            if (shared->idle.size() < shared->kept_max) shared->idle.push_back(std::move(owned));
          }};
}

}  // namespace cumulus
