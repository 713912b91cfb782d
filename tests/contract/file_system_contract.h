// The contract of the disk port: what io_uring, workers and the simulated disk all keep. A harness makes one
// of them; INSTANTIATE_TEST_SUITE_P runs the suite on each.
#pragma once

#include <functional>
#include <gtest/gtest.h>
#include <memory>
#include <string>

#include "objectstore/io/file.h"
#include "objectstore/io/runtime.h"

namespace cumulus {

class FileSystemHarness {
 public:
  virtual ~FileSystemHarness() = default;
  virtual FileSystem& files() = 0;
  virtual Runtime& runtime() = 0;
  // An empty directory of its own.
  virtual std::string root() = 0;
  // Runs `task` to its end on the runtime.
  virtual void run(Task<void> task) = 0;
  // In real ones a directory exists or it does not; the simulated disk has all of them.
  virtual bool real() const = 0;
};

struct FileSystemKind {
  std::string name;
  std::function<std::unique_ptr<FileSystemHarness>()> make;
};

class FileSystemContract : public ::testing::TestWithParam<FileSystemKind> {
 protected:
  // Every test is one task, which gets the port and the directory.
  void run(std::function<Task<void>(FileSystem&, std::string)> body);
  Runtime& runtime() { return harness_->runtime(); }
  bool real() const { return harness_->real(); }

 private:
  std::unique_ptr<FileSystemHarness> harness_ = GetParam().make();
};

}  // namespace cumulus
