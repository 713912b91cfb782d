// Window: how many requests and bytes may be under way to one miner. First come, first served; whoever waits
// gives up at its deadline. Reactor thread.
#pragma once

#include <cstdint>
#include <list>
#include <utility>

#include "objectstore/io/sync.h"

namespace cumulus {

class Window {
 public:
  Window(Runtime& runtime, std::size_t requests_max, std::size_t bytes_max)
      : runtime_(runtime), requests_max_(requests_max), bytes_max_(bytes_max) {}

  // Held while the request is under way. Move-only; must not outlive the window.
  class Hold {
   public:
    Hold() = default;
    Hold(Window& window, std::size_t bytes) : window_(&window), bytes_(bytes) {}
    Hold(Hold&& other) noexcept : window_(std::exchange(other.window_, nullptr)), bytes_(other.bytes_) {}
    Hold& operator=(Hold&& other) noexcept {
      if (this != &other) {
        release();
        window_ = std::exchange(other.window_, nullptr);
        bytes_ = other.bytes_;
      }
      return *this;
    }
    ~Hold() { release(); }
    void release();
    explicit operator bool() const { return window_ != nullptr; }

   private:
    Window* window_ = nullptr;
    std::size_t bytes_ = 0;
  };

  // An empty hold when `deadline` came first or the window was closed. A request larger than the window
  // passes when it is alone.
  Task<Hold> enter(std::size_t bytes, TimePoint deadline);
  // Everybody who waits now gets an empty hold; whoever wants to wait on enters again.
  void interrupt();
  // Everybody who waits gets an empty hold.
  void close();
  std::size_t requests() const { return requests_; }

 private:
  struct Turn {
    explicit Turn(Runtime& runtime) : come(runtime) {}
    Signal come;
  };
  bool fits(std::size_t bytes) const;
  void wake_first();

  Runtime& runtime_;
  std::size_t requests_max_;
  std::size_t bytes_max_;
  std::size_t requests_ = 0;
  std::size_t bytes_ = 0;
  bool closed_ = false;
  std::uint64_t interrupted_ = 0;  // times
  std::list<Turn> queue_;
};

}  // namespace cumulus
