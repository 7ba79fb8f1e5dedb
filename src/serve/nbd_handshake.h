// SPDX-License-Identifier: Apache-2.0
// NbdHandshake: the first phase of a connection, fixed newstyle with every option we know.
//
// Contract, beside the session's:
//  H1  An option is answered before the next one is looked at; its data is taken off the stream
//      whatever the answer is, so the conversation stays in step.
//  H2  Bytes that arrived before STARTTLS was answered are not the encrypted client's: if there
//      are any, the connection ends. State agreed before TLS is forgotten.
#pragma once

#include <optional>

#include "serve/inbox.h"
#include "serve/nbd_session.h"
#include "serve/nbd_transmission.h"

namespace firn::serve {

class NbdHandshake {
 public:
  // `stream` is replaced when TLS begins.
  NbdHandshake(NbdWorld& world, Socket& socket, std::unique_ptr<Stream>& stream, Inbox& inbox)
      : world_(world), socket_(socket), stream_(stream), inbox_(inbox) {}

  // Nothing when the client left or said ABORT; an error when it must be dropped.
  Result<std::optional<NbdAgreement>> run(Io& io);

 private:
  enum class Next : uint8_t { option, transmission, over };
  using Option = wire::nbd::Option;
  using OptionReply = wire::nbd::OptionReply;

  Result<bool> greet(Io& io);
  Result<Next> next_option(Io& io);
  Result<Next> act(Io& io, Option option, View data);
  Result<Next> before_tls(Io& io, Option option);
  Result<Next> export_name(Io& io, View data);
  Result<Next> list(Io& io, View data);
  Result<Next> start_tls(Io& io, View data);
  Result<Next> info_or_go(Io& io, Option option, View data);
  Result<Next> switch_on(Io& io, Option option, View data);
  Result<Next> meta_context(Io& io, Option option, View data);

  void enter(Export found);
  uint16_t flags_of(const Export& exported, bool with_contexts) const;
  Result<Next> reply(Io& io, Option option, OptionReply type, View data);
  Result<Next> refuse(Io& io, Option option, OptionReply type, std::string_view why);
  Result<Next> refuse_export(Io& io, Option option, Error error);
  Result<void> send(Io& io, View a, View b);

  NbdWorld& world_;
  Socket& socket_;
  std::unique_ptr<Stream>& stream_;
  Inbox& inbox_;
  uint32_t client_flags_ = 0;
  bool encrypted_ = false;
  wire::nbd::Form form_ = wire::nbd::Form::simple;
  // What SET_META_CONTEXT selected, and of which export; GO enters that one: a client counts once.
  Export contexts_of_;
  std::vector<std::shared_ptr<MetaContext>> contexts_;
  NbdAgreement agreed_;
};

}  // namespace firn::serve
