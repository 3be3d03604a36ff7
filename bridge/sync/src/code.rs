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
        /// The producer id in the batch is not that of its lane under the hello, or its epoch is above the hello's incarnation.
        WrongProducer = 3 => "wrong producer",
        /// A sequence is missing before this batch. Something the edge acknowledged was not sent: an alarm, not a retry.
        OutOfOrder = 4 => "out-of-order sequence",
        /// A newer epoch of this producer has written.
        Fenced = 5 => "fenced by a newer epoch",
        /// Larger than the stream allows.
        TooLarge = 6 => "batch too large",
        /// The core cannot write now (full, shutting down, failed disk). It closes the connection after this; send again later.
        Unavailable = 7 => "core unavailable",
        /// The core does not have the dictionary that the batch was compressed with: send it again without.
        UnknownDictionary = 8 => "unknown dictionary",
        /// What was compressed for the link does not give a batch again: send it again without.
        Corrupt = 9 => "damaged on the link",
    }
}

impl RefuseCode {
    /// True when the same batch may be taken later: keep it and reconnect. Otherwise sending it again cannot help.
    pub fn is_retryable(self) -> bool {
        self.is_about_compression()
            || matches!(self, RefuseCode::Unavailable | RefuseCode::Other(_))
    }

    /// True when the same batch, not compressed for the link, may be taken: retryable, without any dictionary known before.
    pub fn is_about_compression(self) -> bool {
        matches!(self, RefuseCode::UnknownDictionary | RefuseCode::Corrupt)
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
        /// A later start of this edge has connected before, or another one of the same number: this is a copy or an old backup of
        /// its data directory. The way out is a new enrolment.
        Fenced = 5 => "fenced by a newer incarnation",
        /// The core cannot take connections now; try later.
        Unavailable = 6 => "core unavailable",
        /// The hello contradicts itself: a producer id with a low byte, two lanes of one number.
        Invalid = 7 => "invalid hello",
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

codes! {
    /// Whether an edge knows what time it is.
    #[derive(Default)]
    TimeQuality: u8 {
        /// Its clock may be anything: what it stamps is placed in time later.
        #[default]
        Unknown = 0 => "unknown",
        Known = 1 => "known",
    }
}

codes! {
    /// What became of a question to an edge.
    AnswerStatus: u8 {
        Answered = 0 => "answered",
        /// This edge does not know the question: its software is of another version.
        UnknownQuery = 1 => "unknown question",
        /// The arguments are not what the question takes.
        BadArguments = 2 => "bad arguments",
        /// The edge could not find out.
        Failed = 3 => "failed",
    }
}
