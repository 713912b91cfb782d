#include "objectstore/io/readiness.h"

#include <boost/asio/redirect_error.hpp>

namespace cumulus {

Task<void> Readiness::readable() {
  boost::system::error_code ignored;
  asio::use_awaitable_t<ReactorExecutor> token;
  co_await descriptor_.async_wait(asio::posix::descriptor_base::wait_read,
                                  asio::redirect_error(token, ignored));
}

Task<void> Readiness::writable() {
  boost::system::error_code ignored;
  asio::use_awaitable_t<ReactorExecutor> token;
  co_await descriptor_.async_wait(asio::posix::descriptor_base::wait_write,
                                  asio::redirect_error(token, ignored));
}

void Readiness::cancel() {
  boost::system::error_code ignored;
  descriptor_.cancel(ignored);
}

}  // namespace cumulus
