//! Why something was refused or closed: numbers on the wire, words here.

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident : $int:ty { $($(#[$vdoc:meta])* $variant:ident = $value:literal => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
            /// A number that this version does not know.
            Other($int),
        }

        impl $name {
            pub fn from_wire(value: $int) -> Self {
                match value {
                    $($value => $name::$variant,)*
                    other => $name::Other(other),
                }
            }

            pub fn to_wire(self) -> $int {
                match self {
                    $($name::$variant => $value,)*
                    $name::Other(other) => other,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $($name::$variant => f.write_str($text),)*
                    $name::Other(other) => write!(f, "code {other}"),
                }
            }
        }
    };
}

codes! {
    /// Why the core did not take one batch.
    RefuseCode: u16 {
        /// Not exactly one well-formed RecordBatch v2 (length, magic, CRC), or one that an edge may not send (control,
        /// transactional). Sending it again cannot help: set it aside.
        Malformed = 1 => "malformed batch",
        /// The stream name is not a legal one, or the stream may not be created.
        InvalidStream = 2 => "invalid stream",
        /// The producer id or epoch in the batch is not the one of the hello.
        WrongProducer = 3 => "wrong producer",
        /// A sequence is missing before this batch. Something the edge acknowledged was not sent: an alarm, not a retry.
        OutOfOrder = 4 => "out-of-order sequence",
        /// A newer epoch of this producer has written.
        Fenced = 5 => "fenced by a newer epoch",
        /// Larger than the stream allows.
        TooLarge = 6 => "batch too large",
        /// The core cannot write now (full, shutting down, failed disk). It closes the connection after this; send again later.
        Unavailable = 7 => "core unavailable",
    }
}

impl RefuseCode {
    /// True when the same bytes may be taken later: keep them and reconnect. Otherwise sending them again cannot help.
    pub fn is_retryable(self) -> bool {
        matches!(self, RefuseCode::Unavailable | RefuseCode::Other(_))
    }
}

codes! {
    /// Why the core did not accept a hello.
    HelloRefusal: u16 {
        /// The core does not speak this version of the protocol.
        UnsupportedVersion = 1 => "unsupported protocol version",
        /// No edge with the certificate's name is registered (it was removed): enrol again.
        UnknownEdge = 2 => "unknown edge",
        /// The name was enrolled again since: this certificate is no longer the one.
        CertificateReplaced = 3 => "certificate replaced by a newer enrolment",
        /// The producer id belongs to another edge: this data directory was copied.
        ProducerTaken = 4 => "producer id belongs to another edge",
        /// A newer epoch of this producer has connected before.
        Fenced = 5 => "fenced by a newer epoch",
        /// The core cannot take connections now; try later.
        Unavailable = 6 => "core unavailable",
    }
}

impl HelloRefusal {
    /// True when trying again later, unchanged, may succeed.
    pub fn is_retryable(self) -> bool {
        matches!(self, HelloRefusal::Unavailable | HelloRefusal::Other(_))
    }
}

codes! {
    /// Why the core did not enrol.
    EnrolRefusal: u16 {
        /// No such token, or the wrong secret (never told apart).
        InvalidToken = 1 => "invalid token",
        ExpiredToken = 2 => "expired token",
        /// A single-use token that has been used.
        UsedToken = 3 => "token already used",
        /// The edge name is not 1 to 64 of `a-z A-Z 0-9 . _ -`.
        InvalidName = 4 => "invalid edge name",
        /// The certificate request does not parse, or its signature is wrong.
        InvalidRequest = 5 => "invalid certificate request",
        /// The core cannot write now; try later.
        Unavailable = 6 => "core unavailable",
    }
}

codes! {
    /// Application error code of a QUIC connection close.
    CloseCode: u32 {
        /// Orderly: this end stops.
        Normal = 0 => "closed normally",
        /// The peer broke the protocol.
        Protocol = 1 => "protocol violation",
        /// `towline-sync/1` without a client certificate.
        NoCertificate = 2 => "no client certificate",
        /// A newer connection of the same edge has taken over.
        TakenOver = 3 => "taken over by a newer connection of the same edge",
        /// The core stops; connect again later.
        ShuttingDown = 4 => "core shutting down",
        /// Follows a refusal (of a hello, a batch or an enrolment) that ends the connection.
        Refused = 5 => "refused",
        /// The edge was removed or enrolled again while connected.
        Revoked = 6 => "certificate revoked",
        /// The peer did not say what it had to in time.
        TooSlow = 7 => "handshake took too long",
    }
}
