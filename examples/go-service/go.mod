module example.org/linkd

go 1.19
