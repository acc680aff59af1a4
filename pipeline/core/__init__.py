"""The nouns and protocols of mp: plain values, standard library only, no I/O. Everything else imports from here."""
