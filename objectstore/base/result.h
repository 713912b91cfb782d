// Result<T> and Error: how every floor reports failure.
//
// There are few kinds, and each means different handling by the caller; the message is for the person: what
// failed, on what, why, and what to do. Pure; any thread. Never throw across a public function; never swallow
// a Result.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace cumulus {

enum class ErrorKind : std::uint8_t {
  not_found,    // the thing named does not exist; tell the caller
  exists,       // it exists already, or an assertion of a compound operation failed; tell the caller
  no_space,     // a disk, miner or quota is full; wait for room or tell the caller
  unavailable,  // this source cannot answer now (network, timeout, overload); try another, or later
  corrupt,      // bytes do not verify; never return them, blame the source, try another
  fenced,       // a higher ballot exists; turn read-only and say so
  invalid,      // the request itself is wrong; never retry
  denied,       // authentication or permission; never retry
  unsupported,  // a format version or feature that this program does not know; refuse
  closed,       // the object was closed while the call waited
  io,           // the local disk or the system failed; remember it, report it at the next flush
};

// A stable lower-case word for logs and JSON ("not_found").
std::string_view to_string(ErrorKind kind);

class [[nodiscard]] Error {
 public:
  Error(ErrorKind kind, std::string message) : kind_(kind), message_(std::move(message)) {}

  ErrorKind kind() const { return kind_; }
  const std::string& message() const { return message_; }

  // The same error with what the caller was doing put before the message: "put slice 3: connection refused".
  Error within(std::string_view what) const { return {kind_, std::string(what) + ": " + message_}; }

 private:
  ErrorKind kind_;
  std::string message_;
};

template <class T>
using Result = std::expected<T, Error>;
using Status = std::expected<void, Error>;

inline std::unexpected<Error> fail(ErrorKind kind, std::string message) {
  return std::unexpected<Error>(Error(kind, std::move(message)));
}
inline std::unexpected<Error> fail(Error error) { return std::unexpected<Error>(std::move(error)); }

// An io, no_space, denied or not_found error from an errno value: "write /x/y: No space left on device".
Error from_errno(int errno_value, std::string_view what);

}  // namespace cumulus

#define CUMULUS_CONCAT_(a, b) a##b
#define CUMULUS_CONCAT(a, b) CUMULUS_CONCAT_(a, b)

// TRY(auto x, f()): x = the value, or return the error. The CO_ forms are for coroutines.
#define TRY_IMPL_(ret, tmp, decl, ...)           \
  auto tmp = (__VA_ARGS__);                      \
  if (!tmp) [[unlikely]]                         \
    ret std::unexpected(std::move(tmp).error()); \
  decl = *std::move(tmp)
#define TRY(decl, ...) TRY_IMPL_(return, CUMULUS_CONCAT(try_result_, __COUNTER__), decl, __VA_ARGS__)
#define CO_TRY(decl, ...) TRY_IMPL_(co_return, CUMULUS_CONCAT(try_result_, __COUNTER__), decl, __VA_ARGS__)

// TRY_OK(f()): for a Status, or a Result whose value is not wanted.
#define TRY_OK_IMPL_(ret, tmp, ...)                  \
  if (auto&& tmp = (__VA_ARGS__); !tmp) [[unlikely]] \
  ret std::unexpected(std::move(tmp).error())
#define TRY_OK(...) TRY_OK_IMPL_(return, CUMULUS_CONCAT(try_status_, __COUNTER__), __VA_ARGS__)
#define CO_TRY_OK(...) TRY_OK_IMPL_(co_return, CUMULUS_CONCAT(try_status_, __COUNTER__), __VA_ARGS__)
