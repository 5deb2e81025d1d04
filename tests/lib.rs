//! Nothing lives here: this package only carries the tests beside it.
