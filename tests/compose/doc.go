// Package compose runs the whole system of docker-compose.yml and takes it apart under load: each service is killed and cut off in
// turn, the proxies are scaled up and down, and what clients were told meanwhile, all of it through the load balancer, is held against
// the promises. It also finds one trace through all services in Jaeger.
//
// It needs a Docker engine with the images of `make images images-offline`, so it runs only where it is asked to: with -compose, as
// `make test-compose` does. Each run has a project of its own and takes it down at the end, volumes included.
package compose
