//! Throwaway namespaces, veth pairs and kernel peers for the demo and the tests.
