// The channel over /dev/fuse: read(2) and writev(2), never blocking.
#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

#include "fs/fuse/channel.h"

namespace cumulus {
namespace {

class DeviceChannel final : public FuseChannel {
 public:
  DeviceChannel(Runtime& runtime, int device)
      : device_(device), readiness_(std::make_unique<Readiness>(runtime, device)) {
    ::fcntl(device_, F_SETFL, ::fcntl(device_, F_GETFL) | O_NONBLOCK);
  }
  ~DeviceChannel() override {
    readiness_.reset();
    ::close(device_);
  }

  Got receive(MutableByteView into, std::size_t& size) override {
    for (;;) {
      const ssize_t got = ::read(device_, into.data(), into.size());
      if (got >= 0) {
        size = static_cast<std::size_t>(got);
        return Got::request;
      }
      // ENOENT: the request was taken back by its caller before we had it.
      if (errno == EINTR || errno == ENOENT) continue;
      return errno == EAGAIN ? Got::nothing : Got::ended;
    }
  }

  Task<void> wait() override { return readiness_->readable(); }
  void interrupt() override { readiness_->cancel(); }

  ssize_t send(const iovec* parts, int count) override {
    for (;;) {
      if (::writev(device_, parts, count) >= 0) return 0;
      if (errno != EINTR) return -errno;
    }
  }

 private:
  int device_;
  std::unique_ptr<Readiness> readiness_;
};

}  // namespace

std::unique_ptr<FuseChannel> make_device_channel(Runtime& runtime, int device) {
  return std::make_unique<DeviceChannel>(runtime, device);
}

}  // namespace cumulus
