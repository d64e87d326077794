//! One worker: tables, wheels and the loop.
