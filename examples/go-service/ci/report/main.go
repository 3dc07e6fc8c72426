// Command report turns what the go tools write into what CI systems read:
//
//	report junit <test.json >junit.xml              of `go test -json`
//	report cobertura MODULE <coverage.out >cov.xml  of `go test -coverprofile`
package main

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"os"
	"sort"
	"strings"
)

func main() {
	log.SetFlags(0)
	var result interface{}
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "junit":
		result, err = junit(os.Stdin)
	case len(os.Args) == 3 && os.Args[1] == "cobertura":
		result, err = cobertura(os.Stdin, os.Args[2])
	default:
		log.Fatal("usage: report junit | cobertura MODULE")
	}
	if err != nil {
		log.Fatal(err)
	}
	text, err := xml.MarshalIndent(result, "", "  ")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s%s\n", xml.Header, text)
}

type testEvent struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type testCase struct {
	Name    string    `xml:"name,attr"`
	Class   string    `xml:"classname,attr"`
	Time    float64   `xml:"time,attr"`
	Failure *string   `xml:"failure,omitempty"`
	Skipped *struct{} `xml:"skipped,omitempty"`
}

type testSuite struct {
	Name     string     `xml:"name,attr"`
	Tests    int        `xml:"tests,attr"`
	Failures int        `xml:"failures,attr"`
	Skipped  int        `xml:"skipped,attr"`
	Cases    []testCase `xml:"testcase"`
}

type testSuites struct {
	XMLName xml.Name    `xml:"testsuites"`
	Suites  []testSuite `xml:"testsuite"`
}

func junit(in io.Reader) (*testSuites, error) {
	suites := map[string]*testSuite{}
	output := map[string]string{}
	decoder := json.NewDecoder(in)
	for {
		var e testEvent
		if err := decoder.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		if e.Test == "" {
			continue
		}
		id := e.Package + " " + e.Test
		output[id] += e.Output
		c := testCase{Name: e.Test, Class: e.Package, Time: e.Elapsed}
		suite := suites[e.Package]
		if suite == nil {
			suite = &testSuite{Name: e.Package}
			suites[e.Package] = suite
		}
		switch e.Action {
		case "fail":
			text := output[id]
			c.Failure = &text
			suite.Failures++
		case "skip":
			c.Skipped = &struct{}{}
			suite.Skipped++
		case "pass":
		default:
			continue
		}
		suite.Tests++
		suite.Cases = append(suite.Cases, c)
	}
	all := &testSuites{}
	for _, suite := range suites {
		all.Suites = append(all.Suites, *suite)
	}
	sort.Slice(all.Suites, func(i, k int) bool { return all.Suites[i].Name < all.Suites[k].Name })
	return all, nil
}

type line struct {
	Number int `xml:"number,attr"`
	Hits   int `xml:"hits,attr"`
}

type class struct {
	Name  string  `xml:"name,attr"`
	File  string  `xml:"filename,attr"`
	Rate  float64 `xml:"line-rate,attr"`
	Lines []line  `xml:"lines>line"`
}

type coverage struct {
	XMLName xml.Name `xml:"coverage"`
	Rate    float64  `xml:"line-rate,attr"`
	Covered int      `xml:"lines-covered,attr"`
	Valid   int      `xml:"lines-valid,attr"`
	Classes []class  `xml:"packages>package>classes>class"`
}

// A line of a profile: FILE:LINE.COLUMN,LINE.COLUMN STATEMENTS COUNT. A line that several blocks
// share counts as run when one of them ran.
func cobertura(in io.Reader, module string) (*coverage, error) {
	files := map[string]map[int]int{}
	scanner := bufio.NewScanner(in)
	for scanner.Scan() {
		text := scanner.Text()
		if strings.HasPrefix(text, "mode:") {
			continue
		}
		colon := strings.LastIndex(text, ":")
		var from, to, column, statements, count int
		if colon < 0 {
			return nil, fmt.Errorf("not a line of a profile: %s", text)
		}
		if _, err := fmt.Sscanf(text[colon+1:], "%d.%d,%d.%d %d %d", &from, &column, &to, &column,
			&statements, &count); err != nil {
			return nil, fmt.Errorf("%s: %v", text, err)
		}
		name := strings.TrimPrefix(text[:colon], module+"/")
		if files[name] == nil {
			files[name] = map[int]int{}
		}
		for n := from; n <= to; n++ {
			if count > files[name][n] || files[name][n] == 0 {
				files[name][n] = count
			}
		}
	}
	all := &coverage{}
	for name, hits := range files {
		c := class{Name: name, File: name}
		covered := 0
		for n, count := range hits {
			c.Lines = append(c.Lines, line{n, count})
			if count > 0 {
				covered++
			}
		}
		sort.Slice(c.Lines, func(i, k int) bool { return c.Lines[i].Number < c.Lines[k].Number })
		c.Rate = float64(covered) / float64(len(c.Lines))
		all.Covered += covered
		all.Valid += len(c.Lines)
		all.Classes = append(all.Classes, c)
	}
	if all.Valid > 0 {
		all.Rate = float64(all.Covered) / float64(all.Valid)
	}
	sort.Slice(all.Classes, func(i, k int) bool { return all.Classes[i].Name < all.Classes[k].Name })
	return all, scanner.Err()
}
