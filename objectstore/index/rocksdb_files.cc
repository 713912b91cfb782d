#include "objectstore/index/rocksdb_files.h"

#include <rocksdb/env.h>
#include <rocksdb/env_encryption.h>

#include "objectstore/base/random.h"
#include "objectstore/crypto/aes_ctr.h"
#include "objectstore/io/page_cache_reader.h"

namespace cumulus {
namespace {

constexpr std::size_t kPrefixLength = 4096;
constexpr int kLookForRoomMicros = 50'000;

bool is_manifest(const std::string& path) {
  const auto slash = path.find_last_of('/');
  return path.compare(slash == std::string::npos ? 0 : slash + 1, 8, "MANIFEST") == 0;
}

class BarrierFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  BarrierFile(std::unique_ptr<rocksdb::FSWritableFile> file, const std::function<Status()>& barrier)
      : FSWritableFileOwnerWrapper(std::move(file)), barrier_(barrier) {}

  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           rocksdb::IODebugContext* debug) override {
    return guarded([&] { return FSWritableFileOwnerWrapper::Append(data, options, debug); });
  }
  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           const rocksdb::DataVerificationInfo& info,
                           rocksdb::IODebugContext* debug) override {
    return guarded([&] { return FSWritableFileOwnerWrapper::Append(data, options, info, debug); });
  }
  rocksdb::IOStatus Sync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
    return guarded([&] { return FSWritableFileOwnerWrapper::Sync(options, debug); });
  }
  rocksdb::IOStatus Fsync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
    return guarded([&] { return FSWritableFileOwnerWrapper::Fsync(options, debug); });
  }

 private:
  template <class Write>
  rocksdb::IOStatus guarded(Write write) {
    if (const Status durable = barrier_(); !durable)
      return rocksdb::IOStatus::IOError(durable.error().message());
    return write();
  }
  const std::function<Status()>& barrier_;
};

class BarrierFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  BarrierFileSystem(const std::shared_ptr<rocksdb::FileSystem>& base, std::function<Status()> barrier)
      : FileSystemWrapper(base), barrier_(std::move(barrier)) {}

  const char* Name() const override { return "cumulus.BarrierFileSystem"; }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus status = FileSystemWrapper::NewWritableFile(path, options, file, debug);
    if (status.ok() && is_manifest(path)) *file = std::make_unique<BarrierFile>(std::move(*file), barrier_);
    return status;
  }
  rocksdb::IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                       std::unique_ptr<rocksdb::FSWritableFile>* file,
                                       rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus status = FileSystemWrapper::ReopenWritableFile(path, options, file, debug);
    if (status.ok() && is_manifest(path)) *file = std::make_unique<BarrierFile>(std::move(*file), barrier_);
    return status;
  }
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options, rocksdb::IODebugContext* debug) override {
    if (to.ends_with("/CURRENT")) {
      if (const Status durable = barrier_(); !durable)
        return rocksdb::IOStatus::IOError(durable.error().message());
    }
    return FileSystemWrapper::RenameFile(from, to, options, debug);
  }

  // A power cut may leave a file shorter than its encryption prefix. RocksDB's encrypting layer subtracts the
  // prefix without a look and aborts: such a file has no content, so it is as long as its prefix.
  rocksdb::IOStatus GetFileSize(const std::string& path, const rocksdb::IOOptions& options, uint64_t* size,
                                rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus status = FileSystemWrapper::GetFileSize(path, options, size, debug);
    if (status.ok()) *size = std::max<uint64_t>(*size, kPrefixLength);
    return status;
  }
  rocksdb::IOStatus GetChildrenFileAttributes(const std::string& directory, const rocksdb::IOOptions& options,
                                              std::vector<rocksdb::Env::FileAttributes>* children,
                                              rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus status =
        FileSystemWrapper::GetChildrenFileAttributes(directory, options, children, debug);
    for (auto& child : *children) child.size_bytes = std::max<uint64_t>(child.size_bytes, kPrefixLength);
    return status;
  }

 private:
  std::function<Status()> barrier_;
};

// A write that failed may have written a part: the next attempt goes to the same place.
class PatientFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  PatientFile(std::unique_ptr<rocksdb::FSWritableFile> file, RoomWait& room)
      : FSWritableFileOwnerWrapper(std::move(file)), room_(room) {}

  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           rocksdb::IODebugContext* debug) override {
    return PositionedAppend(data, size_, options, debug);
  }
  rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                           const rocksdb::DataVerificationInfo&, rocksdb::IODebugContext* debug) override {
    return PositionedAppend(data, size_, options, debug);
  }
  rocksdb::IOStatus PositionedAppend(const rocksdb::Slice& data, std::uint64_t offset,
                                     const rocksdb::IOOptions& options,
                                     rocksdb::IODebugContext* debug) override {
    const bool compaction = options.rate_limiter_priority == rocksdb::Env::IO_LOW;
    const auto write = [&] {
      return FSWritableFileOwnerWrapper::PositionedAppend(data, offset, options, debug);
    };
    rocksdb::IOStatus status = write();
    if (status.IsNoSpace() && !compaction && room_.patient) {
      ++room_.waiting;
      while (status.IsNoSpace() && room_.patient) {
        rocksdb::Env::Default()->SleepForMicroseconds(kLookForRoomMicros);
        status = write();
      }
      --room_.waiting;
    }
    if (status.ok()) size_ = offset + data.size();
    return status;
  }
  rocksdb::IOStatus PositionedAppend(const rocksdb::Slice& data, std::uint64_t offset,
                                     const rocksdb::IOOptions& options, const rocksdb::DataVerificationInfo&,
                                     rocksdb::IODebugContext* debug) override {
    return PositionedAppend(data, offset, options, debug);
  }
  rocksdb::IOStatus Truncate(std::uint64_t size, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus status = FSWritableFileOwnerWrapper::Truncate(size, options, debug);
    if (status.ok()) size_ = size;
    return status;
  }

 private:
  RoomWait& room_;
  std::uint64_t size_ = 0;
};

class PatientFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  PatientFileSystem(const std::shared_ptr<rocksdb::FileSystem>& base, std::shared_ptr<RoomWait> room)
      : FileSystemWrapper(base), room_(std::move(room)) {}

  const char* Name() const override { return "cumulus.PatientFileSystem"; }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    rocksdb::IOStatus status = FileSystemWrapper::NewWritableFile(path, options, file, debug);
    if (status.ok()) *file = std::make_unique<PatientFile>(std::move(*file), *room_);
    return status;
  }

 private:
  std::shared_ptr<RoomWait> room_;
};

thread_local bool waiting_allowed = true;

// Without a second descriptor (there were no more of them) every read waits.
class PromptFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  PromptFile(std::unique_ptr<rocksdb::FSRandomAccessFile> file, std::unique_ptr<PageCacheReader> cached)
      : FSRandomAccessFileOwnerWrapper(std::move(file)), cached_(std::move(cached)) {}

  rocksdb::IOStatus Read(std::uint64_t offset, size_t size, const rocksdb::IOOptions& options,
                         rocksdb::Slice* result, char* scratch,
                         rocksdb::IODebugContext* debug) const override {
    if (waiting_allowed)
      return FSRandomAccessFileOwnerWrapper::Read(offset, size, options, result, scratch, debug);
    if (!cached_) return rocksdb::IOStatus::Busy();
    const std::uint64_t left = cached_->size() - std::min(offset, cached_->size());
    const std::size_t wanted = std::min<std::uint64_t>(size, left);
    if (!cached_->try_read(offset, {reinterpret_cast<std::uint8_t*>(scratch), wanted}))
      return rocksdb::IOStatus::Busy();
    *result = rocksdb::Slice(scratch, wanted);
    return rocksdb::IOStatus::OK();
  }

 private:
  const std::unique_ptr<PageCacheReader> cached_;
};

class PromptFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;

  const char* Name() const override { return "cumulus.PromptFileSystem"; }

  // Tables and the like: what is read at random is not written again.
  rocksdb::IOStatus NewRandomAccessFile(const std::string& path, const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* debug) override {
    if (!waiting_allowed) return rocksdb::IOStatus::Busy();
    rocksdb::IOStatus status = FileSystemWrapper::NewRandomAccessFile(path, options, file, debug);
    if (!status.ok()) return status;
    auto cached = PageCacheReader::open(path);
    *file = std::make_unique<PromptFile>(std::move(*file), cached ? std::move(*cached) : nullptr);
    return status;
  }
};

using Counter16 = std::array<std::uint8_t, 16>;

// RocksDB asks for whole ranges; they are ciphered in one call, not block by block.
class CtrStream final : public rocksdb::BlockAccessCipherStream {
 public:
  CtrStream(const SecretKey& key, const Counter16& start) : key_(key), start_(start) {}
  size_t BlockSize() override { return 16; }
  rocksdb::Status Encrypt(uint64_t offset, char* data, size_t size) override {
    aes_ctr(key_, start_, offset, {reinterpret_cast<std::uint8_t*>(data), size});
    return rocksdb::Status::OK();
  }
  rocksdb::Status Decrypt(uint64_t offset, char* data, size_t size) override {
    return Encrypt(offset, data, size);
  }

 protected:
  void AllocateScratch(std::string&) override {}
  rocksdb::Status EncryptBlock(uint64_t block, char* data, char*) override {
    return Encrypt(block * 16, data, 16);
  }
  rocksdb::Status DecryptBlock(uint64_t block, char* data, char*) override {
    return Encrypt(block * 16, data, 16);
  }

 private:
  const SecretKey& key_;
  Counter16 start_;
};

class CtrProvider final : public rocksdb::EncryptionProvider {
 public:
  explicit CtrProvider(SecretKey key) : key_(std::move(key)) {}
  const char* Name() const override { return "cumulus.CtrProvider"; }
  size_t GetPrefixLength() const override { return kPrefixLength; }
  rocksdb::Status CreateNewPrefix(const std::string&, char* prefix, size_t size) const override {
    std::fill_n(prefix, size, '\0');
    SystemRandom random;
    random.fill({reinterpret_cast<std::uint8_t*>(prefix), sizeof(Counter16)});
    return rocksdb::Status::OK();
  }
  rocksdb::Status AddCipher(const std::string&, const char*, size_t, bool) override {
    return rocksdb::Status::NotSupported("the key is given once");
  }
  rocksdb::Status CreateCipherStream(const std::string&, const rocksdb::EnvOptions&, rocksdb::Slice& prefix,
                                     std::unique_ptr<rocksdb::BlockAccessCipherStream>* stream) override {
    // Shorter after a power cut: a log file that was made and never synced, as RocksDB's always is here. It
    // has no content to decipher, and RocksDB decides whether an empty file is what it should be.
    Counter16 start{};
    if (prefix.size() >= start.size()) std::copy_n(prefix.data(), start.size(), start.begin());
    *stream = std::make_unique<CtrStream>(key_, start);
    return rocksdb::Status::OK();
  }

 private:
  SecretKey key_;
};

}  // namespace

std::shared_ptr<rocksdb::FileSystem> make_barrier_file_system(
    const std::shared_ptr<rocksdb::FileSystem>& base, std::function<Status()> barrier) {
  return std::make_shared<BarrierFileSystem>(base, std::move(barrier));
}

std::shared_ptr<rocksdb::FileSystem> make_patient_file_system(
    const std::shared_ptr<rocksdb::FileSystem>& base, std::shared_ptr<RoomWait> room) {
  return std::make_shared<PatientFileSystem>(base, std::move(room));
}

std::shared_ptr<rocksdb::FileSystem> make_prompt_file_system(
    const std::shared_ptr<rocksdb::FileSystem>& base) {
  return std::make_shared<PromptFileSystem>(base);
}

NoWaiting::NoWaiting() { waiting_allowed = false; }
NoWaiting::~NoWaiting() { waiting_allowed = true; }

std::shared_ptr<rocksdb::FileSystem> make_encrypted_file_system(
    const std::shared_ptr<rocksdb::FileSystem>& base, SecretKey key) {
  return rocksdb::NewEncryptedFS(base, std::make_shared<CtrProvider>(std::move(key)));
}

}  // namespace cumulus
