//! The words that labels may take. Adding one adds a series to every subscription that has the label.

/// Declares the words that a label may take: an enum, and how its variants are spelt, in their order.
macro_rules! label_words {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$about])* $variant,)+
        }

        impl $name {
            pub(super) const WORDS: [&'static str; [$($word),+].len()] = [$($word),+];
        }
    };
}

label_words! {
    /// What a database connection is for.
    ConnectionRole {
        /// It looks at the log once per tick, for all.
        Watcher = "watcher",
        /// It keeps leases and publishes the board.
        Leases = "leases",
        /// It folds batches.
        Worker = "worker",
        /// It serves page and HTTP API, while somebody uses them.
        Faces = "faces",
    }
}

label_words! {
    /// How a batch ended.
    BatchOutcome {
        /// It applied events and committed.
        Committed = "committed",
        /// It found nothing to apply.
        Empty = "empty",
        /// It rolled back.
        Failed = "failed",
        /// Somebody else holds the subscription, or the cursor was not where it had been: nothing was applied.
        Fenced = "fenced",
        /// The answer to the commit was lost.
        Unknown = "unknown",
    }
}

label_words! {
    /// What went wrong, as far as an alert needs to know.
    ErrorKind {
        /// The server went away, or refused.
        Connection = "connection",
        /// A statement, a lock or an answer took too long.
        Timeout = "timeout",
        /// A deadlock or a serialization failure.
        Conflict = "conflict",
        /// The lease or the cursor was no longer ours.
        Lease = "lease",
        /// The handler failed on an event.
        Handler = "handler",
        /// The log was not as it must be: a stream out of order.
        Order = "order",
        /// What is stored does not fit: a missing function, an id that does not parse.
        Definition = "definition",
    }
}

label_words! {
    /// What became of a lease.
    LeaseTransition {
        /// This replica holds it now.
        Taken = "taken",
        /// It ended, or somebody else took it.
        Lost = "lost",
        /// It was given back.
        Released = "released",
    }
}
