// Mainstay holds a small fleet of services up: one file, one process.
package main

func main() {}
